"""Our own MQTT broker as a process: `python -m nabij.local.edge_process FILE` (see `edge_config`)."""

import asyncio
import contextlib
import gc
import hmac
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from broker.edge.accounts import Answer, Authenticate, Credentials
from broker.edge.journal import JournalError
from broker.edge.server import EdgeServer, Listener
from broker.edge.sys_topics import exposition
from nabij.event_loop import run
from nabij.local.edge_config import EdgeAccount, EdgeConfig, EdgeListener, hashed, tls_context
from nabij.local.edge_metrics import served
from nabij.local.managed_process import HOST

_GC_THRESHOLDS = (10_000, 50, 100)
_SWITCH_S = 0.0005  # the journal's thread waits so long for its turn, not Python's 5 ms


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
    server = EdgeServer(
        listeners=[_listener(one) for one in config.listeners],
        authenticate=authenticator(config.accounts),
        directory=None if config.directory is None else Path(config.directory),
    )
    async with contextlib.AsyncExitStack() as running:
        await running.enter_async_context(server)
        gc.freeze()
        if config.metrics_port is not None:
            text = partial(exposition, server.broker)
            await running.enter_async_context(served(HOST, config.metrics_port, text))
        await stopped.wait()


def _listener(config: EdgeListener) -> Listener:
    tls = None
    if config.certificate is not None and config.key is not None:
        tls = tls_context(config.certificate, config.key)
    return Listener(host=config.host, port=config.port, tls=tls)


def main() -> None:
    """Run until a signal; end with a line that says why if it cannot listen, or keep its journal."""
    # What a message leaves behind is freed without a search; one looks at all sessions.
    gc.set_threshold(*_GC_THRESHOLDS)
    sys.setswitchinterval(_SWITCH_S)
    config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=EdgeConfig)
    problem: BaseException | None = None
    try:
        run(_serve(config))
    except* (JournalError, OSError) as failed:
        problem = failed
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    if problem is not None:
        where = ", ".join(f"{one.host}:{one.port}" for one in config.listeners)
        sys.exit(f"{where}: {problem}")


if __name__ == "__main__":
    main()
