"""Our own MQTT broker as a process: `python -m nabij.local.edge_process FILE` (see `edge_config`)."""

import asyncio
import hmac
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from broker.edge.accounts import Answer, Authenticate, Credentials
from broker.edge.server import EdgeServer
from nabij.event_loop import run
from nabij.local.edge_config import EdgeAccount, EdgeConfig, hashed


def authenticator(accounts: Sequence[EdgeAccount]) -> Authenticate:
    """Return what finds out who a client is."""
    known = {one.grant.name: one for one in accounts}

    def authenticate(credentials: Credentials, answer: Answer) -> None:
        account = known.get(credentials.username or "")
        given = hashed(credentials.password or b"")
        if account is None or not hmac.compare_digest(given, account.password_sha256):
            answer(None)
        else:
            answer(account.grant)

    return authenticate


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
    run(_serve(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=EdgeConfig)))


if __name__ == "__main__":
    main()
