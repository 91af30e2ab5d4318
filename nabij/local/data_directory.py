"""The data directory: its lock, its accounts and secrets, and what runs in it.

lock-*         held (flock) by the process that uses the directory
accounts.json  {user: password} of the embedded MQTT broker, read at each start, mode 0600
share-group    the made-up NABIJ_SHARE_GROUP, mode 0600
running.json   where the embedded servers listen while they run, mode 0600
clients/USER/  what Mosquitto's clients read as that user with XDG_CONFIG_HOME, mode 0600
mqtt/ redis/   the embedded servers' own
"""

import contextlib
import fcntl
import json
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from broker.errors import ConfigError
from nabij.local.account_names import is_name, problem_of_name
from nabij.local.embedded import Account
from nabij.local.managed_process import write_private
from nabij.local.temporary import temporary_directory
from schemas.roles import Role

SERVICES_ACCOUNT = "nabij"
CITY_DESK = "city-desk"
OPERATOR = "operator"
_DESK = "desk-"
# Hexadecimal, easy to type on a phone: 80 bits.
_PASSWORD_BYTES = 10
_SHORTEST_PASSWORD = 12


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What runs in a data directory now, for other commands. Has passwords."""

    pid: int
    mqtt_url: str | None = None
    redis_url: str | None = None
    http_url: str | None = None
    mqtt_listen: str | None = None
    mqtt_metrics_url: str | None = None


class DataDir:
    """One data directory."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @contextlib.contextmanager
    def held(self, *names: str) -> Iterator[None]:
        """Lock the directory under these names, each of which only one process may hold.

        Raises:
            ConfigError: another process does, or the directory cannot be written.
        """
        with contextlib.ExitStack() as stack:
            for name in names:
                stack.enter_context(self._locked(name))
            yield

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path / f"lock-{name}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                [f"the data directory {self.path} cannot be used: {error.strerror}"]
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError([self._taken(lock)]) from None
        else:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(lock)

    def _taken(self, lock: int) -> str:
        pid = os.pread(lock, 20, 0).decode().strip()
        return (
            f"another nabij{f' (process {pid})' if pid else ''} runs in {self.path}: stop it, "
            "or choose another directory with --data-dir or NABIJ_DATA_DIR"
        )

    @property
    def holds_data(self) -> bool:
        """Whether an embedded Redis has written anything here."""
        redis = self.path / "redis"
        return any(redis.glob("appendonly*")) or any(redis.glob("*.rdb"))

    def running(self) -> Running | None:
        """Return what runs here now, if anything does."""
        try:
            running = msgspec.json.decode((self.path / "running.json").read_bytes(), type=Running)
            os.kill(running.pid, 0)
        except (OSError, msgspec.DecodeError):
            return None
        return running

    @contextlib.contextmanager
    def announced(self, running: Running) -> Iterator[None]:
        """Write where the servers listen, for other commands."""
        path = self.path / "running.json"
        write_private(path, msgspec.json.encode(running).decode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def client_of(self, user: str) -> Path:
        """Return the directory with the options and the password of `user`, for other clients."""
        return self.path / "clients" / user

    def write_clients(self, host: str, port: int, passwords: Mapping[str, str]) -> None:
        """Write them, so that no password has to be on a command line, which all users can read."""
        for user, password in passwords.items():
            directory = self.client_of(user)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            options = f"-h {host}\n-p {port}\n-V mqttv5\n-q 1\n-u {user}\n-P {password}\n"
            for name in ("mosquitto_pub", "mosquitto_sub"):
                write_private(directory / name, options)
            write_private(directory / "password", password)

    def share_group(self) -> str:
        """Return the secret share group of this directory, generated the first time."""
        path = self.path / "share-group"
        if not path.exists():
            write_private(path, secrets.token_hex(16))
        return path.read_text(encoding="ascii").strip()

    def known_passwords(self) -> Mapping[str, str]:
        """Return the passwords that were generated here, if any."""
        try:
            raw = (self.path / "accounts.json").read_bytes()
            return msgspec.json.decode(raw, type=dict[str, str])
        except (OSError, msgspec.DecodeError):
            return {}

    def passwords(self, users: Iterable[str]) -> dict[str, str]:
        """Return the passwords of `users` and of all earlier users, generated once each.

        Raises:
            ConfigError: the file cannot be read, or an account in it could not be used.
        """
        path = self.path / "accounts.json"
        known = _accounts_in(path)
        fresh = {user: _password() for user in users if user not in known}
        if problems := [*_problems_of(known | fresh)]:
            raise ConfigError([f"{path}: {problem}" for problem in problems])
        if fresh:
            write_private(path, msgspec.json.format(msgspec.json.encode(known | fresh)).decode())
        return known | fresh


def _accounts_in(path: Path) -> dict[str, str]:
    """Return what was generated, and what an operator has added."""
    try:
        raw = path.read_bytes()
        known = msgspec.json.decode(raw, type=dict[str, str])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: {error}: mend it, or remove it to have new ones"]) from None
    names = Counter(name for name, _ in json.loads(raw, object_pairs_hook=list))
    if twice := [name for name, times in names.items() if times > 1]:
        raise ConfigError([f"{path}: the account {name!r} stands there twice" for name in twice])
    return known


def _problems_of(passwords: Mapping[str, str]) -> Iterator[str]:
    for user, password in passwords.items():
        if not is_name(user) or (is_desk(user) and not is_name(user.removeprefix(_DESK))):
            yield problem_of_name(user)
        elif len(password) < _SHORTEST_PASSWORD:
            yield (
                f"the password of {user!r} is too short: {_SHORTEST_PASSWORD} characters or more, "
                "such as those of `openssl rand -hex 10`"
            )


@contextlib.contextmanager
def temporary_unless(chosen: Path | None) -> Iterator[Path]:
    """Yield the chosen directory, or a temporary one."""
    if chosen:
        yield chosen
    else:
        with temporary_directory() as directory:
            yield directory


def accounts_of(passwords: Mapping[str, str]) -> list[Account]:
    """Return the accounts of these users, by name."""
    return [_account(user, password) for user, password in passwords.items()]


def desk_of(zone: str) -> str:
    """Return the user name of the police desk of `zone`."""
    return f"{_DESK}{zone}"


def is_desk(user: str) -> bool:
    """Whether this is the user name of a zone's police desk."""
    return user.startswith(_DESK)


def _account(user: str, password: str) -> Account:
    if user in (SERVICES_ACCOUNT, OPERATOR):
        return Account(user, password, Role.SERVICE)
    if user == CITY_DESK:
        return Account(user, password, Role.CITY_DESK)
    if is_desk(user):
        return Account(user, password, Role.POLICE_DESK, user.removeprefix(_DESK))
    return Account(user, password, Role.PARTICIPANT)


def _password() -> str:
    return secrets.token_hex(_PASSWORD_BYTES)
