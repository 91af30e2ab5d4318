"""The store and MQTT broker for a command beside `nabij up`: configured, running, or at rest."""

import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from broker.errors import ConfigError, UnavailableError
from broker.hosts import each_url
from broker.mqtt import Connection, ConnectionOptions, Endpoint, MqttError
from broker.runtime import config
from broker.runtime.config import Settings
from broker.runtime.mqtt_causes import told_of_mqtt
from broker.store import Opening, Partitions, open_partitions
from nabij.local.data_directory import DataDir
from nabij.local.embedded import EmbeddedRedis
from nabij.local.temporary import PREFIX
from nabij.output import say


@asynccontextmanager
async def opened_store(
    settings: Settings, opening: Opening = Opening.READ
) -> AsyncIterator[Partitions]:
    """Yield the partitions of the configured store, or of the data directory's.

    If nothing runs in a data directory, its Redis is started for the duration. Without data that is
    an error: a wrong directory must not look like an empty one.

    Raises:
        ConfigError: the data directory cannot be used, or there is nothing to read.
        UnavailableError: Redis does not answer.
    """
    settings = _at_running(settings)
    data_dir = DataDir(settings.data_dir)
    running = data_dir.running()
    url = settings.redis_url or (running and running.redis_url)
    if url:
        async with open_partitions(url, settings.partitions, opening=opening) as stores:
            if opening is Opening.READ and await stores[0].partition_count() is None:
                raise ConfigError(["there is nothing of Nabij in that Redis: see NABIJ_REDIS_URL"])
            yield stores
        return
    if opening is Opening.READ and not data_dir.holds_data:
        raise ConfigError([_nothing_in(data_dir.path)])
    with data_dir.held("embedded"):
        async with (
            EmbeddedRedis(data_dir.path) as redis,
            open_partitions(redis.url, settings.partitions, opening=opening) as stores,
        ):
            yield stores


@asynccontextmanager
async def opened_mqtt(
    settings: Settings, *, client_id: str, subscriptions: Sequence[str] = ()
) -> AsyncIterator[Connection]:
    """Yield a connection to the configured MQTT broker, or to that in the data directory.

    Raises:
        ConfigError: there is none, or its URL is wrong.
        UnavailableError: it cannot be reached, refuses the account or has ended the connection.
    """
    endpoint = _mqtt_endpoint(settings)
    options = ConnectionOptions(session_expiry_s=0)
    try:
        async with Connection(
            endpoint, client_id=client_id, subscriptions=subscriptions, options=options
        ) as connection:
            yield connection
    except MqttError as error:
        raise UnavailableError(told_of_mqtt(error, endpoint)) from error


def _mqtt_endpoint(settings: Settings) -> Endpoint:
    """Return the endpoint of the configured MQTT broker, or of that in the data directory.

    Raises:
        ConfigError: there is none, or its URL is wrong.
    """
    settings = _at_running(settings)
    running = DataDir(settings.data_dir).running()
    url = settings.mqtt_url or (running and running.mqtt_url)
    if not url:
        raise ConfigError([_nothing_in(settings.data_dir, "no MQTT broker runs there")])
    try:
        return Endpoint.from_url(each_url(url)[0])
    except ValueError as error:
        raise ConfigError([f"NABIJ_MQTT_URL: {error}"]) from None


def each_to_search(settings: Settings) -> list[Settings]:
    """Return the settings of each place where an incident may be, in the order to look.

    If nothing was chosen, the demos and replays that run follow the default directory.
    """
    if _is_chosen(settings):
        return [settings]
    demos = [replace(settings, data_dir=path) for path in _temporary()]
    return [settings, *demos] if _is_used(settings.data_dir) else demos or [settings]


def searched(settings: Settings) -> str:
    """Return where an incident was looked for in vain, and what else there is to look into."""
    if settings.redis_url:
        where = "the Redis of NABIJ_REDIS_URL"
    else:
        where = ", ".join(describe_running(one.data_dir) for one in each_to_search(settings))
    others = "".join(
        f"; a demo or replay runs in {describe_running(one)}: --data-dir {one}"
        for one in (_temporary() if _is_chosen(settings) else [])
        if one != settings.data_dir
    )
    return f"{where}{others}"


def describe_running(path: Path) -> str:
    """Return a running demo's directory, with its process."""
    running = DataDir(path).running()
    return f"{path} (process {running.pid})" if running else str(path)  # None: it has just ended


def data_dir_option(path: Path) -> str:
    """Return ` --data-dir PATH`, or "" if a command finds what runs there by itself."""
    if path.parent == Path(tempfile.gettempdir()) and not _is_used(config.default_data_dir()):
        return ""
    return f" --data-dir {path}"


def _at_running(settings: Settings) -> Settings:
    """Use the running demo if nothing was chosen and nothing is in the default place."""
    found = _demos_for(settings)
    if len(found) != 1:
        return settings
    say(f"looking into what runs in {found[0]}")
    return replace(settings, data_dir=found[0])


def _demos_for(settings: Settings) -> list[Path]:
    """Return the running demos if nothing was chosen and nothing is in the default place."""
    return [] if _is_chosen(settings) or _is_used(settings.data_dir) else _temporary()


def _is_chosen(settings: Settings) -> bool:
    """Whether servers or a directory were named."""
    named = settings.redis_url or settings.mqtt_url
    return bool(named) or settings.data_dir != config.default_data_dir()


def _is_used(path: Path) -> bool:
    data_dir = DataDir(path)
    return data_dir.running() is not None or data_dir.holds_data


def _temporary() -> list[Path]:
    """Return the directories of the demos and replays of this user that run now."""
    found = []
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        status = path.lstat()
        if status.st_uid == os.geteuid() and not status.st_mode & 0o077 and DataDir(path).running():
            found.append(path)
    return sorted(found)


def _nothing_in(path: Path, what: str = "nothing runs there and there is no data") -> str:
    others = "".join(f"; a demo or replay runs in {describe_running(one)}" for one in _temporary())
    return (
        f"{path}: {what}; name the directory of your `nabij up` with --data-dir or "
        f"NABIJ_DATA_DIR, or set NABIJ_REDIS_URL and NABIJ_MQTT_URL{others}"
    )
