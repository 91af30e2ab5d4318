"""Settings: the only reader of the environment. Each setting is one row of `SETTINGS`."""

import ipaddress
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from broker.errors import ConfigError
from broker.hosts import each_url


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable: its name, how it is read, its default and what it does."""

    name: str
    parse: Callable[[str], Any]
    default: Any
    meaning: str
    hidden_because: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a process runs with. None for a URL means: start an embedded server."""

    mqtt_url: str | None = field(default=None, repr=False)
    mqtt: str = "auto"
    mqtt_port: int | None = None
    mqtt_listen: str | None = None
    mqtt_certificate: Path | None = None
    mqtt_key: Path | None = None
    mqtt_metrics_port: int | None = None
    redis_url: str | None = field(default=None, repr=False)
    share_group: str | None = field(default=None, repr=False)
    data_dir: Path
    policy: Path | None = None
    http: tuple[str, int] = ("127.0.0.1", 0)
    log_level: str = "info"
    log_format: str = "auto"
    instance: str = "1"
    partitions: int = 1
    unsafe_redis: bool = False


# The port of a URL, at most its first six digits. Before an @ it is part of a password.
_PORT = re.compile(r"[^/]*//(?:[^/?#]*@)?[^/?#@]*:([0-9]{1,6})[0-9]*(?:[/?#][^@]*)?")


def _url(*schemes: str, several: bool = False) -> Callable[[str], str]:
    def parse(text: str) -> str:
        expected = f"must be {' or '.join(s + '://host[:port]' for s in schemes)}"
        for one in each_url(text) if several else [text]:
            if (port := _PORT.fullmatch(one)) and not 1 <= int(port[1]) <= 65_535:
                raise ValueError(f"{expected}, and the port is out of range (1 to 65535)")
            try:
                url = urlsplit(one)
                _ = url.port  # raises ValueError for what is no number
            except ValueError:  # whose text may repeat a part of the password
                raise ValueError(f"{expected}, and / in a password is written %2F") from None
            if url.scheme not in schemes or not url.hostname:
                raise ValueError(expected)
        return text

    return parse


def _listen_url(text: str) -> str:
    expected = "must be mqtts://address:port, such as mqtts://0.0.0.0:8883"
    try:
        url = urlsplit(text)
        is_whole = bool(url.hostname and url.port)
    except ValueError:
        raise ValueError(expected) from None
    if url.scheme not in ("mqtt", "mqtts") or not is_whole:
        raise ValueError(expected)
    if "@" in url.netloc or url.path.strip("/") or url.query or url.fragment:
        raise ValueError(expected)
    if url.scheme == "mqtt" and not _is_loopback(str(url.hostname)):
        raise ValueError(
            "without TLS passwords, reports and places travel in the clear: "
            "use mqtts://, or the loopback address 127.0.0.1"
        )
    return text


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: what it comes to may change
        return host == "localhost"


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 65_535:
        raise ValueError("must be a port from 1 to 65535")
    return int(text)


def _redis_url(text: str) -> str:
    _url("redis", "rediss", several=True)(text)
    url = urlsplit(each_url(text)[0])
    databases = [url.path.removeprefix("/") or "0", *parse_qs(url.query).get("db", [])]
    if not all(re.fullmatch("[0-9]{1,9}", one) for one in databases):  # redis-py takes x as 0
        raise ValueError(
            "must be redis://host[:port][/database], where the database is a number, "
            "and / in a password is written %2F"
        )
    return text


def _level(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,40}", text):
        raise ValueError("must be 1 to 40 letters, digits or hyphens")
    return text


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 64:
        raise ValueError("must be a number from 1 to 64")
    return int(text)


def _yes(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("must be 1 (yes) or 0 (no)")
    return text == "1"


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text.lower()

    return parse


def _host_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise ValueError("must be host:port (port 0 picks a free one)")
    return host or "127.0.0.1", int(port)


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~user, and that user has no home
        raise ValueError(error) from None


def _existing_file(text: str) -> Path:
    path = _path(text)
    if not path.is_file():
        raise ValueError(f"no such file: {path}")
    return path


def default_data_dir() -> Path:
    """Return the directory of this user where nothing else is set."""
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "nabij"


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "NABIJ_MQTT_URL",
        _url("mqtt", "mqtts", several=True),
        None,
        "MQTT broker, e.g. mqtt://user:password@host:1883, or several that serve one city, "
        "…@host:1883,other:1883; unset: an embedded one",
        hidden_because="holds a password",
    ),
    Setting(
        "NABIJ_MQTT",
        _one_of("auto", "edge", "mosquitto"),
        "auto",
        "which MQTT broker is embedded: edge, Nabij's own, which auto is too, or mosquitto",
    ),
    Setting(
        "NABIJ_MQTT_PORT",
        _port,
        None,
        "loopback port of the embedded MQTT broker; default: that of its last start in the data "
        "directory, or a free one",
    ),
    Setting(
        "NABIJ_MQTT_LISTEN",
        _listen_url,
        None,
        "where Nabij's own MQTT broker also listens, for devices and desks on other machines, e.g. "
        "mqtts://0.0.0.0:8883; unset: nowhere",
    ),
    Setting(
        "NABIJ_MQTT_CERTIFICATE",
        _existing_file,
        None,
        "certificate of NABIJ_MQTT_LISTEN with its chain (PEM)",
    ),
    Setting(
        "NABIJ_MQTT_KEY",
        _existing_file,
        None,
        "private key of NABIJ_MQTT_CERTIFICATE (PEM, without a password)",
    ),
    Setting(
        "NABIJ_MQTT_METRICS_PORT",
        _port,
        None,
        "loopback port of /metrics of Nabij's own MQTT broker; unset: none",
    ),
    Setting(
        "NABIJ_REDIS_URL",
        _redis_url,
        None,
        "Redis or Valkey, e.g. redis://host:6379/0, or some nodes of a cluster, "
        "redis://host:7001,other:7002; unset: an embedded one",
        hidden_because="may hold a password",
    ),
    Setting(
        "NABIJ_PARTITIONS",
        _count,
        1,
        "in how many partitions everything is filed, the same for all and forever: more than "
        "one lets a Redis Cluster share the work",
    ),
    Setting(
        "NABIJ_UNSAFE_REDIS",
        _yes,
        False,  # noqa: FBT003 - its default
        "1: run on a Redis that may lose what got a receipt (no appendonly yes, appendfsync always "
        "or maxmemory-policy noeviction); every status page says so",
    ),
    Setting(
        "NABIJ_SHARE_GROUP",
        _level,
        None,
        "secret name of the share group that the services' workers subscribe with; "
        "unset with an embedded MQTT broker: made up and kept in the data directory",
        hidden_because="a client that knows it can swallow reports",
    ),
    Setting(
        "NABIJ_DATA_DIR",
        _path,
        None,
        "where embedded servers keep their data; default: a per-user directory",
    ),
    Setting(
        "NABIJ_POLICY",
        _existing_file,
        None,
        "the city's policy file (TOML); default: the one that is shipped",
    ),
    Setting(
        "NABIJ_HTTP",
        _host_port,
        ("127.0.0.1", 0),
        "host:port of /livez, /readyz and /metrics; default: a free loopback port",
    ),
    Setting(
        "NABIJ_LOG_LEVEL",
        _one_of("debug", "info", "warning", "error"),
        "info",
        "debug, info, warning or error",
    ),
    Setting(
        "NABIJ_LOG_FORMAT",
        _one_of("auto", "json", "text"),
        "auto",
        "json, text, or auto: text on a terminal, else json",
    ),
    Setting(
        "NABIJ_INSTANCE",
        _level,
        "1",
        "name of this host's instance, part of the MQTT client ids; must differ between hosts that "
        "run at the same time",
    ),
)


def log_format(environ: Mapping[str, str] | None = None) -> str:
    """Return how to log, before the settings are known to be right."""
    text = (os.environ if environ is None else environ).get("NABIJ_LOG_FORMAT", "").lower()
    return text if text in ("json", "text") else "auto"


def device_password() -> str | None:
    """Return the password of the participant that a command speaks as."""
    return os.environ.get("NABIJ_DEVICE_PASSWORD")


class ServiceManager(NamedTuple):
    """Where systemd listens, if it started us, and how often it wants a watchdog message."""

    socket: str | None
    watchdog_s: float


def service_manager() -> ServiceManager:
    """Return what systemd has set (sd_notify(3), sd_watchdog_enabled(3)), once.

    It is taken out of the environment: Mosquitto and Redis, started by us, would answer too.
    """
    microseconds = os.environ.pop("WATCHDOG_USEC", "")
    watchdog_s = int(microseconds) / 1e6 if microseconds.isdigit() else 0.0
    return ServiceManager(os.environ.pop("NOTIFY_SOCKET", None), watchdog_s)


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings in `environ` (default: the process environment).

    Raises:
        ConfigError: naming every setting that is wrong, and every unknown NABIJ_ one.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    problems: list[str] = []
    for setting in SETTINGS:
        text = environ.get(setting.name, "")
        try:
            value = setting.parse(text) if text else setting.default
        except ValueError as error:
            shown = "(hidden)" if setting.hidden_because else repr(text)
            problems.append(f"{setting.name}={shown}: {error}")
            continue
        values[setting.name.removeprefix("NABIJ_").lower()] = value
    known = {setting.name for setting in SETTINGS} | {"NABIJ_DEVICE_PASSWORD"}
    problems.extend(
        f"{name}: no such setting; see `nabij doctor`"
        for name in sorted(environ)
        if name.startswith("NABIJ_") and name not in known
    )
    problems.extend(_contradictions(values))
    if problems:
        raise ConfigError(problems)
    values["data_dir"] = values["data_dir"] or default_data_dir()
    return Settings(**values)


_OF_OUR_OWN = ("mqtt_listen", "mqtt_certificate", "mqtt_key", "mqtt_metrics_port")


def _contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with settings that are each right; a wrong one is not in `values`."""
    if values.get("mqtt_url") and not values.get("share_group"):
        yield "NABIJ_SHARE_GROUP: must be set, to the same secret for all, when NABIJ_MQTT_URL is"
    ours = _names(name for name in _OF_OUR_OWN if values.get(name))
    if values.get("mqtt_url"):
        if unused := _names(name for name in ("mqtt_port", *_OF_OUR_OWN) if values.get(name)):
            yield (
                f"{', '.join(unused)}: for an embedded MQTT broker; that of NABIJ_MQTT_URL "
                "listens as its own configuration says (docs/operations.md, TLS)"
            )
    elif values.get("mqtt") == "mosquitto":
        if ours:
            yield (
                f"{', '.join(ours)}: for Nabij's own MQTT broker, not with NABIJ_MQTT=mosquitto; "
                "run Mosquitto yourself for that (docs/operations.md, TLS) and set NABIJ_MQTT_URL"
            )
    else:
        yield from _contradictions_of_listeners(values)


def _contradictions_of_listeners(values: Mapping[str, Any]) -> Iterator[str]:
    listen: str | None = values.get("mqtt_listen")
    files = ("mqtt_certificate", "mqtt_key")
    if listen and listen.startswith("mqtts"):
        missing = _names(name for name in files if name in values and values[name] is None)
        if missing:
            yield f"{', '.join(missing)}: must be set with NABIJ_MQTT_LISTEN=mqtts://…"
    elif "mqtt_listen" in values and (unused := _names(name for name in files if values.get(name))):
        yield f"{', '.join(unused)}: for NABIJ_MQTT_LISTEN=mqtts://…, which is not set"
    chosen = {name: values.get(name) for name in ("mqtt_port", "mqtt_metrics_port")}
    chosen["mqtt_listen"] = urlsplit(listen).port if listen else None
    for port in sorted({one for one in chosen.values() if one}):
        same = _names(name for name, one in chosen.items() if one == port)
        if len(same) > 1:
            yield f"{', '.join(same)}: have one port, {port}"


def _names(fields: Iterable[str]) -> list[str]:
    return [f"NABIJ_{field.upper()}" for field in fields]
