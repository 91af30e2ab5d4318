"""A server as a child process: on a loopback port, in its own directory, ending with us.

`embedded.py` has the servers.
"""

import asyncio
import atexit
import contextlib
import errno
import fcntl
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Self

from broker.errors import ConfigError

HOST = "127.0.0.1"
# Below the kernel's ephemeral range (32768 and up): otherwise a client that reconnects during a
# restart could get our port as its own, and even connect to itself.
PORTS = range(20_000, 32_000)
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0
LOCK_TIMEOUT_S = 10.0
PORT_TIMEOUT_S = 1.0  # a process that is killed loses its lock a little before its port
POLL_S = 0.01


def free_port() -> int:
    """A loopback port without a listener."""
    for _ in range(200):
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise ConfigError([f"no free port on {HOST} between {PORTS.start} and {PORTS.stop}"])


def try_to_bind(host: str, port: int) -> None:
    """Return if a server could listen there; a process that has just ended may still leave.

    Raises:
        OSError: it could not.
    """
    give_up_at = time.monotonic() + PORT_TIMEOUT_S
    while True:
        try:
            return _bind(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > give_up_at:
                raise
        time.sleep(POLL_S)


def _bind(host: str, port: int) -> None:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:  # as asyncio does
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)


def write_private(path: Path, text: str) -> None:
    """Write a file with secrets, at no moment readable by other users."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:  # noqa: PTH123
        file.write(text)


def lock_directory(directory: Path, name: str) -> int:
    """Lock a directory, which its server may still be leaving; return the descriptor.

    Raises:
        ConfigError: a server uses it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    give_up_at = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up_at:
                os.close(lock)
                problem = (
                    f"{directory} is in use by another {name}: "
                    "stop that one or choose another data directory"
                )
                raise ConfigError([problem]) from None
            time.sleep(POLL_S)
        else:
            return lock


class Child:
    """One child process: its locked directory, start, readiness, stop, kill and restart.

    Without a port of its own it listens where it did at its last start in the directory. If that
    port is taken, `moved_from` is it, and `port` is another. `others` are ports that the server uses
    beside it.

    It ends with the thread that started it (PR_SET_PDEATHSIG is bound to the thread, not to the
    process). So call `start` and `restart` on the main thread, where the event loop is.
    """

    name: str
    description: str
    port: int

    def __init__(
        self, directory: Path, port: int | None = None, *, others: Collection[int] = ()
    ) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.moved_from: int | None = None
        self._port_is_fixed = port is not None
        self._others = others
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
            raise ConfigError([f"{self.name} is not running"])
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the child is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the server and wait until it answers. Raises ConfigError."""
        self._claim()
        self._spawn()
        self._await_ready()
        return self

    def stop(self) -> None:
        """Stop the server, first by SIGTERM, and unlock its directory. Safe to call twice."""
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
            raise ConfigError([f"{self.name} is still running: kill it first"])
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

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    def _command(self) -> list[str]:
        """Write the configuration and say what to run."""
        raise NotImplementedError

    def _ready(self) -> bool:
        """Whether our child answers, and not another program on its port."""
        raise NotImplementedError

    @property
    def _log(self) -> Path:
        return self.directory / f"{self.name}.log"

    def _claim(self) -> None:
        """Lock the directory: two servers on one append-only file would ruin it.

        The child inherits the lock, so it is held until both have ended.
        """
        self._lock = lock_directory(self.directory, self.name)
        self._keep_port()

    def _keep_port(self) -> None:
        """Listen where clients look for us, now that our last process has left that port."""
        path = self.directory / "port"
        kept = _port_in(path)
        if kept is not None and not self._port_is_fixed:
            if kept not in self._others and _is_free(kept):
                self.port = kept
            else:
                self.moved_from = kept
        path.write_text(f"{self.port}\n", encoding="ascii")

    def _spawn(self) -> None:
        command = self._command()
        tether = Path(__file__).with_name("parent_death.py")
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
                problem = (
                    f"{self.description} did not start on {HOST}:{self.port}; "
                    f"its log {self._log} ends: {' / '.join(log) or '(empty)'}"
                )
                raise ConfigError([problem])
            time.sleep(POLL_S)


def _is_free(port: int) -> bool:
    try:
        try_to_bind(HOST, port)
    except OSError:
        return False
    return True


def _port_in(path: Path) -> int | None:
    try:
        port = int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return port if 0 < port < 65_536 else None
