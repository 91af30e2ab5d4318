"""Our own MQTT broker as a process: `python -m nabij.local.edge_process FILE`.

The file has where it listens, where it keeps its journal, and who may connect.
"""

import asyncio
import hashlib
import hmac
import signal
import sys
from pathlib import Path

import msgspec
import uvloop

from broker.edge.accounts import Answer, Authenticate, Credentials, Grant, Quotas
from broker.edge.server import EdgeServer
from broker.identity.acl import rights
from schemas.roles import Role

# Services share one account: their rights are wide, and their quotas are those of the machine.
_SERVICE_QUOTAS = Quotas(
    connections=10_000,
    subscriptions=100_000,
    retained=1_000_000,
    queued_bytes=256 << 20,
    publishes_per_s=1e6,
    turn_packets=256,
)
_DESK_QUOTAS = Quotas(
    connections=100, retained=1_000, queued_bytes=64 << 20, publishes_per_s=1_000, turn_packets=64
)
_QUOTAS = {Role.SERVICE: _SERVICE_QUOTAS, Role.PARTICIPANT: Quotas()}


class EdgeAccount(msgspec.Struct, frozen=True):
    """An account that may connect; `zone` is the police zone of a desk.

    Passwords are long and random, so a fast hash is enough.
    """

    username: str
    password_sha256: str
    role: Role
    zone: str | None = None


class EdgeConfig(msgspec.Struct, frozen=True):
    """What the process is started with; without a directory it keeps all in memory."""

    host: str
    port: int
    directory: str | None
    accounts: list[EdgeAccount]


def hashed(password: str) -> str:
    """Return what stands in the file in a password's place."""
    return hashlib.sha256(password.encode()).hexdigest()


def authenticator(accounts: list[EdgeAccount]) -> Authenticate:
    """Return what finds out who a client is."""
    known = {one.username: one for one in accounts}
    grants = {one.username: grant_of(one) for one in accounts}

    def authenticate(credentials: Credentials, answer: Answer) -> None:
        account = known.get(credentials.username or "")
        given = hashlib.sha256(credentials.password or b"").hexdigest()
        if account is None or not hmac.compare_digest(given, account.password_sha256):
            answer(None)
        else:
            answer(grants[account.username])

    return authenticate


def grant_of(account: EdgeAccount) -> Grant:
    """Return the rights of an account, which follow from the contract."""
    own = account.zone if account.role is Role.POLICE_DESK else account.username
    rows = [
        one.split(" ", 1)
        for one in rights(account.role, own if account.role is not Role.CITY_DESK else None)
    ]
    return Grant(
        name=account.username,
        reads=tuple(pattern for verb, pattern in rows if verb.startswith("read")),
        writes=tuple(pattern for verb, pattern in rows if verb.endswith("write")),
        is_service=account.role is Role.SERVICE,
        quotas=_QUOTAS.get(account.role, _DESK_QUOTAS),
    )


async def _serve(config: EdgeConfig) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with EdgeServer(
        host=config.host,
        port=config.port,
        authenticate=authenticator(config.accounts),
        directory=None if config.directory is None else Path(config.directory),
    ):
        await stopped.wait()


def main() -> None:
    """Run until a signal."""
    config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=EdgeConfig)
    uvloop.run(_serve(config))


if __name__ == "__main__":
    main()
