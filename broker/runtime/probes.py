"""How a worker learns each second whether it works: a round trip over MQTT, a write to Redis.

A PUBACK proves nothing: Mosquitto grants every SUBSCRIBE and filters on delivery, so what counts is
that the probe comes back, through the very loop that takes up reports. Its topic is the worker's
own, so that the share group loses no report by it.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from functools import partial

import structlog
from msgspec.structs import replace

from broker.core.clock_jumps import AGREE_S
from broker.core.health import Cause, Health, Severity, redis_cause, stops
from broker.errors import UnavailableError
from broker.mqtt import Connection, Delivery, Message, MqttError, PubAckReasonCode
from broker.runtime.externals import Externals
from broker.runtime.service import outgoing
from broker.store import Store
from schemas import topics
from schemas.codec import Invalid
from schemas.messages import Probe

EVERY_S = 1.0
DEAF_S = 4.0  # a probe that has not come back by then is lost, or far behind
SLOW_S = 1.0  # an answer of Redis that takes longer makes every receipt late
GONE_S = 3.0  # and without one for so long it is away
_SETTINGS_EVERY = 5  # turns
_EXPIRY_S = 10
_PROBES = topics.PROBE.filter().partition("+")[0]

_log = structlog.get_logger()


def probe_topic(service: str, instance: str) -> str:
    """Return the topic that a worker's probes go over."""
    return topics.PROBE.topic(name=service, instance=instance)


class _Ear:
    """One MQTT connection: which probe it sent last, and which came back."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.nonce = secrets.token_hex(8)  # what a session brings from an earlier life is not ours
        self.sent = 0
        self.sent_at: dict[int, float] = {}
        self.answered = asyncio.Event()  # the first came back, or was refused
        self.quiet_since: float | None = None  # since when it is connected and hears nothing
        self.round_trip_s: float | None = None
        self.received = 0
        self.outcome = PubAckReasonCode.SUCCESS

    def hear(self, probe: Probe, now: float) -> None:
        """A probe came back."""
        sent_at = self.sent_at.get(probe.number) if probe.nonce == self.nonce else None
        if sent_at is None:
            return
        self.round_trip_s = now - sent_at
        self.quiet_since = None
        self.sent_at = {number: at for number, at in self.sent_at.items() if number > probe.number}
        self.answered.set()


class Probes:
    """Watches one worker; `on_health` is called each second with what was found."""

    # long: what it looks at, each a part of the worker, and whom it tells
    def __init__(
        self,
        service: str,
        instance: str,
        *,
        stores: Sequence[Store],
        connections: Sequence[Connection],
        account: str | None,
        unsafe_redis: bool,
        externals: Externals,
        on_health: Callable[[Health], None],
    ) -> None:
        self.topic = probe_topic(service, instance)
        self._message = partial(outgoing, topics.PROBE, name=service, instance=instance)
        self._stores = stores
        self._ears = [_Ear(connection) for connection in connections]
        self._account = account or "(anonymous)"
        self._accepts_unsafe = unsafe_redis
        self._clock = externals.clock
        self._pause = externals.pause
        self._on_health = on_health
        self._settings: list[Cause] = []
        self._redis_s: float | None = None
        self._told: frozenset[str] = frozenset()

    def is_one(self, delivery: Delivery) -> bool:
        """Whether this is a probe: ours, or one that waited in a session that we take over."""
        return delivery.message.topic.startswith(_PROBES)

    def hear(self, delivery: Delivery, broker_index: int) -> None:
        """Take in a probe."""
        try:
            probe = topics.PROBE.decode(delivery.message.payload)
        except Invalid:
            probe = Probe(number=0, nonce="")
        delivery.acknowledge()
        self._ears[broker_index].hear(probe, asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Look and tell, again and again."""
        loop = asyncio.get_running_loop()
        turn = 0
        while True:
            began = loop.time()
            self._tell(await self._look(turn))
            turn += 1
            await self._pause("probes", max(0.0, began + EVERY_S - loop.time()))

    async def _look(self, turn: int) -> Health:
        async with asyncio.TaskGroup() as tasks:
            redis = tasks.create_task(self._redis(turn), name="probe redis")
            mqtt = tasks.create_task(self._mqtt(), name="probe mqtt")
        trips = [ear.round_trip_s for ear in self._ears if ear.round_trip_s is not None]
        return Health(
            causes=(*redis.result(), *mqtt.result(), *self._clock_causes()),
            mqtt_up=any(ear.connection.connected for ear in self._ears),
            redis_up=self._redis_s is not None,
            mqtt_round_trip_s=max(trips, default=None),
            redis_answer_s=self._redis_s,
            clock_jump_s=self._clock.held_jump_s,
            clock_jumps=self._clock.jumps,
        )

    def _tell(self, health: Health) -> None:
        """Tell the supervisor; log what is new, and what is over."""
        codes = frozenset(cause.code for cause in health.causes)
        for cause in health.causes:
            if cause.code not in self._told:
                stops = cause.severity is Severity.STOPS
                log = _log.error if stops else _log.warning
                log("unhealthy", code=cause.code, what=cause.what, mend=cause.mend, stops=stops)
        for code in sorted(self._told - codes):
            _log.info("healthy again", code=code)
        self._told = codes
        self._on_health(health)

    # -- Redis ------------------------------------------------------------------------------------

    async def _redis(self, turn: int) -> list[Cause]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(GONE_S):
                shared = self._clock.shared
                times = await asyncio.gather(
                    *(store.server.write(shared) for store in self._stores)
                )
                self._redis_s = loop.time() - began
                if turn % _SETTINGS_EVERY == 0:
                    self._settings = await self._server_settings()
        except TimeoutError:
            self._redis_s = None
            return [redis_cause(f"Redis does not answer for {GONE_S:g} s", "of Redis")]
        except UnavailableError as error:
            self._redis_s = None
            return [redis_cause(str(error), "of Redis")]
        return [*self._settings, *self._slowness(), *self._clocks_apart(times)]

    async def _server_settings(self) -> list[Cause]:
        servers = [store.server for store in self._stores]
        unsafe = await asyncio.gather(*(server.unsafe() for server in servers))
        disks = await asyncio.gather(*(server.disk() for server in servers))
        found = {
            cause.what: cause for some in unsafe for cause in accepted(some, self._accepts_unsafe)
        }
        found |= {cause.what: cause for some in disks for cause in some}
        return list(found.values())

    def _slowness(self) -> list[Cause]:
        if self._redis_s is None or self._redis_s < SLOW_S:
            return []
        return [
            Cause(
                code="redis_slow",
                what=f"Redis took {self._redis_s:.1f} s to write",
                mend="look at its disk and its load (INFO, SLOWLOG, LATENCY DOCTOR)",
                severity=Severity.DEGRADES,
            )
        ]

    # -- the clock --------------------------------------------------------------------------------

    def _clocks_apart(self, times: Sequence[float]) -> list[Cause]:
        apart_s = max((self._clock.compare(at) for at in times), key=abs)
        if abs(apart_s) <= AGREE_S or self._clock.held_jump_s:
            return []
        return [clocks_apart(apart_s)]

    def _clock_causes(self) -> list[Cause]:
        if not self._clock.held_jump_s:
            return []
        return [
            Cause(
                code="clock_jumped",
                what=f"the clock of this host is {self._clock.held_jump_s:+.0f} s from the time that "
                f"the services go by; {self._which_clock()}",
                mend="set the clocks right (chronyc makestep); if this one is right, set that of "
                "Redis and wait",
                severity=Severity.DEGRADES,
            )
        ]

    def _which_clock(self) -> str:
        if not self._clock.redis_agrees:
            return "Redis does not show this host's time either: this host's clock stands alone"
        return (
            f"Redis shows this host's time, which counts in {self._clock.held_for_s:.0f} s "
            "if it stays"
        )

    # -- MQTT -------------------------------------------------------------------------------------

    async def _mqtt(self) -> list[Cause]:
        """Send a probe by each connection; wait for it only where nothing is known yet."""
        found = await asyncio.gather(*(self._ear(ear) for ear in self._ears))
        causes = [cause for cause in found if cause is not None]
        if len(causes) == len(self._ears):
            return causes
        # One of several MQTT brokers serves its devices; the others' devices are served as before.
        return [
            Cause(code=one.code, what=one.what, mend=one.mend, severity=Severity.DEGRADES)
            for one in causes
        ]

    async def _ear(self, ear: _Ear) -> Cause | None:
        if not ear.connection.connected:
            ear.quiet_since, ear.round_trip_s = None, None
            ear.sent_at.clear()
            ear.answered.clear()
            return _down(ear.connection)
        self._send(ear)
        if not ear.answered.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DEAF_S):
                    await ear.answered.wait()
        return self._judge(ear)

    def _send(self, ear: _Ear) -> None:
        now = asyncio.get_running_loop().time()
        ear.sent += 1
        ear.sent_at[ear.sent] = now
        ear.quiet_since = ear.quiet_since or now
        message: Message = self._message(
            Probe(number=ear.sent, nonce=ear.nonce), expiry_s=_EXPIRY_S
        )
        try:
            outcome = ear.connection.publish_nowait(message)
        except MqttError:  # overloaded, or closing: it stays unheard
            return
        outcome.add_done_callback(partial(_note, ear))

    def _judge(self, ear: _Ear) -> Cause | None:
        received, ear.received = ear.received, ear.connection.stats().received
        now = asyncio.get_running_loop().time()
        if ear.quiet_since is not None and ear.outcome is PubAckReasonCode.NOT_AUTHORIZED:
            return self._not_authorized(f"may not publish {self.topic}")
        if ear.quiet_since is None or now - ear.quiet_since < DEAF_S - 0.1:
            return None
        if ear.received > received:  # messages come, and ours is behind them
            return Cause(
                code="mqtt_backlog",
                what=f"messages are taken up more than {now - ear.quiet_since:.0f} s late",
                mend="wait until the backlog is done; if it stays, run more workers",
                severity=Severity.DEGRADES,
            )
        return self._not_authorized(f"does not receive what is published on {self.topic}")

    def _not_authorized(self, what: str) -> Cause:
        return Cause(
            code="mqtt_deaf",
            what=f"the MQTT account {self._account!r} {what}: no report reaches the services",
            mend="use the services' account in NABIJ_MQTT_URL, and give it "
            f"`topic readwrite {topics.ROOT}/#` in the MQTT broker's ACL; `nabij doctor` tells more",
        )


def accepted(causes: Sequence[Cause], unsafe: bool) -> list[Cause]:  # noqa: FBT001 - a setting
    """Return what is wrong with Redis' settings; what the operator has accepted only degrades."""
    return [_accepted(one, unsafe) if stops([one]) else one for one in causes]


def _accepted(cause: Cause, unsafe: bool) -> Cause:  # noqa: FBT001 - a setting
    if not unsafe:
        return replace(cause, mend=f"{cause.mend}, or accept the loss with NABIJ_UNSAFE_REDIS=1")
    what = f"{cause.what} (accepted by NABIJ_UNSAFE_REDIS=1)"
    return replace(cause, what=what, severity=Severity.DEGRADES)


def clocks_apart(apart_s: float) -> Cause:
    """Return that the clock of Redis is so far ahead of ours."""
    return Cause(
        code="clocks_apart",
        what=f"the clock of Redis is {apart_s:+.0f} s from ours",
        mend="let chrony or ntpd set the clocks of both hosts",
        severity=Severity.DEGRADES,
    )


def _note(ear: _Ear, outcome: asyncio.Future[PubAckReasonCode]) -> None:
    if not outcome.cancelled() and outcome.exception() is None:
        ear.outcome = outcome.result()
        if ear.outcome.is_failure:
            ear.answered.set()


def not_connected(connections: Sequence[Connection]) -> tuple[Cause, ...]:
    """Return what a worker waits for that is not connected yet."""
    return tuple(_down(connection) for connection in connections)


def _down(connection: Connection) -> Cause:
    if connection.is_held_back:
        return Cause(
            code="session_given_up",
            what="without Redis another worker takes over this worker's MQTT session",
            mend="let this host reach Redis again: the worker then connects by itself",
        )
    return Cause(
        code="mqtt_down",
        what=f"no connection to the MQTT broker at {connection.where}",
        mend="start it, or mend NABIJ_MQTT_URL; the services come back by themselves",
    )
