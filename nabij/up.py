"""`nabij up`: every service, or some of them, until SIGTERM."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import structlog

from broker.core.zones import UNASSIGNED
from broker.errors import ConfigError
from broker.runtime import config, log
from broker.runtime.config import Settings
from nabij.local.data_directory import CITY_DESK, DataDir, desk_of
from nabij.local.mqtt_listeners import metrics_url
from nabij.local.stack import TRY_IT, Stack
from nabij.output import console_err, print_json, say
from nabij.service_manager import keep_told
from services import ALL


def workers_of(services: Sequence[str], counts: Sequence[str]) -> dict[str, int]:
    """Return how many workers of which service, from `--service` and `--workers`.

    Raises:
        ConfigError: with every word that is wrong.
    """
    problems = [f"--service {name}: no such service" for name in services if name not in ALL]
    workers = dict.fromkeys((name for name in ALL if not services or name in services), 1)
    for text in counts:
        name, _, number = text.partition("=")
        if not number.isdigit() or not 1 <= int(number) <= 64:
            problems.append(f"--workers {text}: must be NAME=N or all=N, N from 1 to 64")
        elif name == "all":
            workers = dict.fromkeys(workers, int(number))
        elif name in workers:
            workers[name] = int(number)
        else:
            problems.append(f"--workers {text}: {name!r} is not run here")
    if problems:
        raise ConfigError([*problems, f"services are {', '.join(ALL)}"])
    return workers


def announcer() -> tuple[Callable[[str], None], Callable[[str], None]]:
    """Return how to tell what happens, and what is wrong: in the log if that is JSON and no text."""
    log_format = config.log_format()
    if not log.is_json(log_format):
        return say, say
    log.set_up("info", log_format)
    logger = structlog.get_logger(__name__)
    return logger.info, logger.error


async def up(
    settings: Settings,
    workers: Mapping[str, int],
    *,
    within_s: float,
    as_json: bool,
    announce: Callable[[str], None] = say,
) -> None:
    """Run until cancelled; every service has so long to become ready."""
    manager = config.service_manager()
    stack = Stack(settings, workers=workers, http=settings.http, say=announce)
    async with stack:
        await stack.wait_ready(within_s)
        _write_clients(stack)
        if as_json:
            print_json(_description(stack))
        else:
            _describe(stack, announce)
        await keep_told(manager)


def _write_clients(stack: Stack) -> None:
    """For an embedded MQTT broker: write the files that let other clients log in."""
    if stack.embedded:
        url = urlsplit(stack.mqtt_url)
        shown = {user: stack.credentials[user] for user in _shown(stack)}
        assert url.hostname is not None
        assert url.port is not None
        DataDir(stack.settings.data_dir).write_clients(url.hostname, url.port, shown)


def _description(stack: Stack) -> dict[str, Any]:
    return {
        "ready": True,
        "services": [worker.name for worker in stack.supervisor.workers],
        "mqtt": _host_and_port(stack.mqtt_url),
        "mqtt_listen": stack.settings.mqtt_listen,
        "mqtt_metrics": metrics_url(stack.settings),
        "redis": _host_and_port(stack.redis_url),
        "http": stack.http_url,
        "warnings": [*stack.redis_warnings],
        "zones": sorted({zone.id for zone in stack.zones}),
        "accounts": {user: stack.credentials[user] for user in _shown(stack)},
    }


def _describe(stack: Stack, say: Callable[[str], None]) -> None:
    say(f"ready: {', '.join(worker.name for worker in stack.supervisor.workers)}")
    say(f"MQTT at {_host_and_port(stack.mqtt_url)}, Redis at {_host_and_port(stack.redis_url)}")
    if stack.settings.mqtt_listen:
        say(f"MQTT for other machines at {stack.settings.mqtt_listen}")
    say(f"{stack.http_url}/readyz  /livez  /metrics")
    if url := metrics_url(stack.settings):
        say(f"{url} of the MQTT broker")
    for warning in stack.redis_warnings:
        say(f"WARNING: {warning}")
    if not stack.embedded:
        return
    if not console_err.is_terminal:  # a log keeps what it is told; passwords are not for it
        say(f"accounts and their passwords: {stack.settings.data_dir}/accounts.json")
        return
    say(f"\naccounts to try it with (all of them: {stack.settings.data_dir}/accounts.json)")
    for user in _shown(stack):
        say(f"  {user:<16} {stack.credentials[user]}")
    for line in _try_it(stack):
        say(line)


def _try_it(stack: Stack) -> list[str]:
    url = urlsplit(stack.mqtt_url)
    zone = next((zone.id for zone in stack.zones), UNASSIGNED)
    data_dir = DataDir(stack.settings.data_dir)
    desk, password = data_dir.client_of(desk_of(zone)), data_dir.client_of("ann") / "password"
    where = f"--broker mqtt://{url.hostname}:{url.port} --lat 51.05 --lon 3.72"
    return [
        "\nwatch a police desk, and report as ann:",
        f"  XDG_CONFIG_HOME={desk} mosquitto_sub -t 'nabij/v1/police/{zone}/#' -v",
        f"  {sys.executable} -m devices.button --user ann --password-file {password} {where}",
        "\nCtrl-C ends it.",
    ]


def _shown(stack: Stack) -> list[str]:
    """Few enough to read: a country has hundreds of zones."""
    desks = [desk_of(zone) for zone in sorted({zone.id for zone in stack.zones})[:10]]
    users = [*TRY_IT, *desks, desk_of(UNASSIGNED), CITY_DESK]
    return [user for user in users if user in stack.credentials]


def _host_and_port(url: str) -> str:
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2]
