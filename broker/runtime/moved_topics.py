"""Topics that have moved to another service: given up by the sessions of the service that had them.

A persistent session keeps its subscriptions over an upgrade, and with them its share of what comes.
So the service that had a topic goes on handling it, and unsubscribes once a worker of the other
service has subscribed: at no moment is nobody there.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import structlog

from broker.errors import UnavailableError
from broker.mqtt import Connection, MqttError
from broker.runtime.externals import Pause
from broker.store import WorkerState, WorkerStore

LOOK_S = 1.0

_log = structlog.get_logger()


async def give_up_moved(
    moved: Mapping[str, Sequence[str]],
    workers: WorkerStore,
    connections: Sequence[Connection],
    pause: Pause,
) -> None:
    """Unsubscribe from what has moved, by the service that has it now, for ever.

    After each connection again: an MQTT broker that was killed may bring back a session as it was.
    """
    given_up: set[tuple[str, int, int]] = set()
    while True:
        for successor, filters in moved.items():
            for server in await _subscribed_at(successor, workers, len(connections)):
                connection = connections[server]
                which = (successor, server, connection.stats().reconnects)
                if which not in given_up and await _has_unsubscribed(connection, filters):
                    given_up.add(which)
                    _log.info("another service has these topics now", to=successor)
        await pause("moved topics", LOOK_S)


async def _subscribed_at(service: str, workers: WorkerStore, servers: int) -> list[int]:
    """Return at which MQTT brokers a worker of that service is subscribed, and lives."""
    with suppress(UnavailableError):  # the next look will tell
        running = {
            one.session.server
            for one in await workers.of(service)
            if one.session.state is WorkerState.RUNNING and one.is_alive
        }
        return [server for server in range(servers) if server in running]
    return []


async def _has_unsubscribed(connection: Connection, filters: Sequence[str]) -> bool:
    with suppress(MqttError):  # not connected: after the next connection
        await connection.unsubscribe(filters)
        return True
    return False
