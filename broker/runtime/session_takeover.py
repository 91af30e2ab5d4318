"""A worker registers among those of its service, and takes over the sessions of dead ones.

A persistent session outlives its worker, with its place in the shared subscriptions. A living
worker of the same service ends it: connects under its client id, handles what is queued,
unsubscribes and leaves for good. A worker that leaves while others stay does so itself; the last
one keeps its session, so that nothing is lost while all are down.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import chain

import structlog
from msgspec.structs import replace

from broker.errors import UnavailableError
from broker.mqtt import (
    Connection,
    ConnectionLost,
    ConnectionOptions,
    Endpoint,
    Message,
    MqttError,
)
from broker.runtime import metrics
from broker.runtime.config import Settings
from broker.runtime.connections import (
    RECEIVE_MAXIMUM,
    client_id_of,
    filters_of,
    moved_filters_of,
    no_status_of,
    shown_as,
    status_of,
)
from broker.runtime.externals import Externals
from broker.runtime.liveness import Lease, Liveness
from broker.runtime.moved_topics import give_up_moved
from broker.runtime.service import Service
from broker.store import Registered, WorkerSession, WorkerState, WorkerStore
from schemas.ids import new_id
from schemas.messages import ServiceState

BEAT_S = 1.0
CHECK_LOOKS = 600  # after so many looks, as after each connection, ended sessions are checked
END_S = 3.0  # so long a worker that leaves has for what is queued; else another takes it over
AT_ONCE = 8  # sessions of others that are taken over side by side
STALLED_S = 60.0  # a session of which nothing comes for so long is left, and tried again later
_CONNECT_S = 5.0
_LEAVE_TRIES = 5

_log = structlog.get_logger()

Receive = Callable[[int, Connection], Awaitable[None]]


class TakeOver:
    """One worker's own sessions, at each MQTT broker, and those that it takes over.

    `receive` handles what comes by a connection, until it is cancelled. `lease` is renewed with
    each heartbeat.
    """

    # long: all that one worker's place among the others consists of
    def __init__(
        self,
        service: Service,
        settings: Settings,
        instance: str,
        workers: WorkerStore,
        *,
        endpoints: Sequence[Endpoint],
        connections: Sequence[Connection],
        lease: Lease,
        externals: Externals,
    ) -> None:
        self._service = service
        self._instance = instance
        self._workers = workers
        self._endpoints = endpoints
        self._connections = connections
        self._lease = lease
        self._externals = externals
        self._holder = str(new_id())
        self._moved = moved_filters_of(service, settings)
        held = (
            *filters_of(service, settings, instance),
            *chain.from_iterable(self._moved.values()),
        )
        self._own = [
            WorkerSession(
                service=service.name,
                instance=instance,
                server=server,
                holder=self._holder,
                client_id=client_id_of(service, settings, instance),
                filters=held,
            )
            for server in range(len(endpoints))
        ]
        self._changing = asyncio.Lock()  # a heartbeat amid a change would undo it
        self._liveness = Liveness()
        self._found: Sequence[Registered] = ()
        self._looks = 0
        self._looked = asyncio.Event()
        self._to_check: set[str] = set()  # ended sessions that may have come back
        self._reconnected: set[int] = set()
        self._ending: set[str] = set()  # sessions of others that are being taken over
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._left: list[WorkerSession] = []

    # -- being one of the workers ------------------------------------------------------------------

    async def register(self) -> None:
        """Say, before anything is connected, that these sessions are ours."""
        began = _now()
        for session in self._own:
            await self._workers.register(session)
        self._lease.renew(given_at=began, look_s=BEAT_S)

    async def connected(self, server: int) -> None:
        """Say that we have subscribed; an MQTT broker that was restarted may have old sessions."""
        async with self._changing:
            self._own[server] = replace(self._own[server], state=WorkerState.RUNNING)
            await self._workers.register(self._own[server])
        self._reconnected.add(server)

    async def beat(self) -> None:
        """Write our heartbeat and look for those of others, forever."""
        while True:
            await self._externals.pause("heartbeat", BEAT_S)
            began = _now()
            try:
                async with self._changing:
                    for session in self._own:
                        await self._give_sign(session)
                self._lease.renew(given_at=began, look_s=BEAT_S)
                self._look(await self._workers.of(self._service.name))
            except UnavailableError:
                self._liveness.forget()

    async def _give_sign(self, session: WorkerSession) -> None:
        if not await self._workers.beat(session):
            if self._lease.has_ended:
                _log.info("taken over while we gave no heartbeat; we are back", **_named(session))
            else:
                _log.warning(
                    "another process answered for our session; registered again: is NABIJ_INSTANCE "
                    "the same on two hosts?",
                    **_named(session),
                )
            await self._workers.register(session)

    def _look(self, found: Sequence[Registered]) -> None:
        self._found = found
        self._looks += 1
        if self._looks % CHECK_LOOKS == 0:
            self._reconnected.update(range(len(self._endpoints)))
        self._liveness.look({one.session.name: (one.record, one.beat) for one in found})
        if self._reconnected:
            self._liveness.forgive()
            self._to_check |= {
                one.session.name
                for one in found
                if one.session.state is WorkerState.GONE and one.session.server in self._reconnected
            }
            self._reconnected.clear()
        self._looked.set()

    def gone(self) -> set[str]:
        """Return the instances of whose sessions none is alive: what they had in hand is free."""
        alive = {self._instance} | {
            one.session.instance
            for one in self._found
            if one.session.state not in (WorkerState.GONE, WorkerState.CLAIMED)
            and not self._liveness.is_dead(one.session.name)
        }
        return {one.session.instance for one in self._found} - alive

    async def give_up_moved(self) -> None:
        """Leave to other services what was this one's in an older release, for ever."""
        if self._moved:
            pause = self._externals.pause
            await give_up_moved(self._moved, self._workers, self._connections, pause)

    # -- the sessions of others --------------------------------------------------------------------

    async def take_over(self, receive: Receive) -> None:
        """End the sessions of the dead, forever; side by side, so that a long queue holds up none."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._looked.wait()
                self._looked.clear()
                for found in self._found:
                    name = found.session.name
                    if name not in self._ending and self._is_to_be_ended(found.session):
                        self._ending.add(name)
                        one = self._take_over_one(found, receive)
                        tasks.create_task(one, name=f"take over {_shown(found.session)}")

    async def _take_over_one(self, found: Registered, receive: Receive) -> None:
        try:
            async with self._at_once:
                with suppress(UnavailableError):  # the next look will tell
                    await self._claim_and_end(found, receive)
        finally:
            self._ending.discard(found.session.name)

    def _is_to_be_ended(self, session: WorkerSession) -> bool:
        if session.server >= len(self._endpoints) or session.name == self._own[session.server].name:
            return False
        if not self._connections[session.server].connected:
            return False
        if session.state is WorkerState.GONE:
            return session.name in self._to_check
        return self._liveness.is_dead(session.name)

    async def _claim_and_end(self, found: Registered, receive: Receive) -> None:
        name, shown = found.session.name, _shown(found.session)
        self._to_check.discard(name)
        claimed = await self._workers.claim(found, holder=self._holder, by=self._instance)
        if claimed is None:
            return
        ending = asyncio.create_task(self._end(claimed, receive), name=f"end {shown}")
        holding = asyncio.create_task(self._hold(claimed), name=f"hold {shown}")
        either: set[asyncio.Task[bool]] = {ending, holding}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                await self._record(claimed, found, was_there=ending.result())
            else:
                _log.info("a worker came back for its session", **_named(claimed))
        except (MqttError, TimeoutError) as error:
            self._liveness.failed(name)
            _log.warning("a session was not taken over", **_named(claimed), why=str(error))
        finally:
            for task in either:
                task.cancel()
            await asyncio.gather(*either, return_exceptions=True)

    async def _hold(self, claimed: WorkerSession) -> bool:
        """Hold a claim; return when it is lost: to its worker, which has come back, or to another."""
        while True:
            await asyncio.sleep(BEAT_S)
            with suppress(UnavailableError):  # who can reach Redis may claim it, and disconnects us
                if not await self._workers.beat(claimed):
                    return False

    async def _end(self, claimed: WorkerSession, receive: Receive) -> bool:
        """Handle what is queued in a session and end it; return whether there was one.

        Its retained status goes by the same connection: a worker that comes back ends that
        connection before it says that it is ready.
        """
        connection = self._externals.open_mqtt(
            self._endpoints[claimed.server],
            client_id=claimed.client_id,
            options=ConnectionOptions(
                shown_as=_shown(claimed),
                receive_maximum=RECEIVE_MAXIMUM,
                connect_timeout_s=_CONNECT_S,
                drain_timeout_s=0.5,
                reconnects=False,
            ),
        )
        async with connection:
            if not await self._workers.beat(claimed):
                raise ConnectionLost("its worker is back")
            now = self._externals.clock.now()
            last = status_of(self._service, claimed.instance, ServiceState.STOPPED, now)
            receiving = asyncio.ensure_future(receive(claimed.server, connection))
            try:
                await _while_it_moves(
                    connection.end_session(claimed.filters, _marked(last)), connection
                )
                await connection.publish(no_status_of(self._service, claimed.instance))
            finally:
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)
        return connection.session_present

    async def _record(self, claimed: WorkerSession, found: Registered, *, was_there: bool) -> None:
        if not was_there and claimed.ended_ms:
            await self._workers.still_ended(claimed, found)
            return
        if was_there:  # counted although Redis may be away now: the next who looks finds no session
            metrics.SESSIONS_ADOPTED.labels(self._service.name).inc()
            _log.warning("took over the session of a worker that is gone", **_named(claimed))
        await self._workers.ended(claimed)

    # -- leaving -----------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Unsubscribe and take what is queued, wherever another worker stays."""
        try:
            async with asyncio.timeout(END_S), asyncio.TaskGroup() as leaving:
                for server, connection in enumerate(self._connections):
                    if connection.connected:
                        leaving.create_task(self._leave(server, connection), name=f"leave {server}")
        except TimeoutError:
            _log.warning("no time left to take what is queued", service=self._service.name)

    async def _leave(self, server: int, connection: Connection) -> None:
        now = self._externals.clock.now()
        last = status_of(self._service, self._instance, ServiceState.DRAINING, now)
        try:
            leaving = await self._may_leave(server)
            if leaving is None:
                _log.info("the last worker keeps its session", **_named(self._own[server]))
                return
            await connection.end_session(leaving.filters, _marked(last))
            self._left.append(leaving)
        except (MqttError, UnavailableError) as error:
            _log.warning("a session is left behind", **_named(self._own[server]), why=str(error))

    async def _may_leave(self, server: int) -> WorkerSession | None:
        """Decide, against all who decide so at the same time, whether another worker stays."""
        for _ in range(_LEAVE_TRIES):
            own = self._own[server]
            staying = [
                one
                for one in await self._workers.of(self._service.name)
                if one.session.server == server
                and one.session.name != own.name
                and one.session.state is WorkerState.RUNNING
                and self._liveness.is_alive(one.session.name)
            ]
            if not staying:
                return None
            async with self._changing:
                if leaving := await self._workers.leave(own, staying[0]):
                    self._own[server] = leaving
                    return leaving
        return None

    async def clear_status(self) -> None:
        """Remove our retained status wherever our session ends: this worker may never come back."""
        gone = no_status_of(self._service, self._instance)
        leaving = [self._connections[session.server] for session in self._left]
        with suppress(TimeoutError):  # it stays, and says that we have stopped
            async with asyncio.timeout(END_S):
                await asyncio.gather(
                    *(one.publish(gone) for one in leaving if one.connected), return_exceptions=True
                )

    async def left(self) -> None:
        """Say, once disconnected, which of our sessions have ended."""
        with suppress(UnavailableError, TimeoutError):
            async with asyncio.timeout(END_S):
                for session in self._left:
                    await self._workers.ended(session)


async def _while_it_moves(ending: Awaitable[None], connection: Connection) -> None:
    """Await the end of a session, as long as what is queued in it comes.

    Raises:
        TimeoutError: nothing came for `STALLED_S`.
    """
    ended, received = asyncio.ensure_future(ending), -1
    try:
        while not (await asyncio.wait([ended], timeout=STALLED_S))[0]:
            before, received = received, connection.stats().received
            if received == before:
                raise TimeoutError(f"nothing has come of what is queued for {STALLED_S:g} s")
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)
    await ended


def _now() -> float:
    return asyncio.get_running_loop().time()


def _shown(session: WorkerSession) -> str:
    return shown_as(session.service, session.instance)


def _marked(message: Message) -> Message:
    return replace(message, correlation=new_id().bytes)


def _named(session: WorkerSession) -> dict[str, str]:
    return {"service": session.service, "instance": session.instance}
