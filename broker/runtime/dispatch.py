"""Dispatch: decode → handle → publish → record → acknowledge, for one message or event.

`Rejected` goes back to its sender as a receipt, `Unavailable` is tried again and acknowledged only
when it has worked, anything else is logged with its traceback and dead-lettered, so that poison
cannot loop. A broad `except` stands here, and in `broker/store/kernel/isolation.py` for one item of
several.
"""

# long: what becomes of a delivery, from its topic to its acknowledgement, is read as one

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import structlog
from msgspec.structs import replace

from broker.core.policy import Policy
from broker.errors import UnavailableError
from broker.identity.principal import NOBODY, Principal, principal_of
from broker.mqtt import (
    BrokerPool,
    Connection,
    Delivery,
    Message,
    MqttError,
    PubAckReasonCode,
    ServerStatus,
)
from broker.redaction import wordless
from broker.runtime import metrics
from broker.runtime.dead_letters import letter_of, letter_of_refused, rejection_of, replay_token
from broker.runtime.externals import Externals
from broker.runtime.refusals import known_path, levels_of, refusal_of, shape_of
from broker.runtime.retained import cleared
from broker.runtime.service import (
    NOTHING,
    Context,
    Effects,
    Locks,
    Service,
    Subscription,
    Zones,
    traced,
)
from broker.store import Partitions, Store, StreamEntry
from broker.store.kernel.isolation import isolated
from schemas import topics
from schemas.codec import Code, Invalid
from schemas.messages import Position
from schemas.roles import Role
from schemas.topics import Topic

T = TypeVar("T")
_log = structlog.get_logger()
_FIRST_RETRY_S, _LAST_RETRY_S = 0.05, 5.0
_BATCH_ALONE = 32  # from here on one batched write beats a future for each message


class _Valid(NamedTuple):
    """One of several messages that are handled together."""

    value: Any
    delivery: Delivery
    principal: Principal
    notes: tuple[str, ...]


class Dispatcher:
    """Runs the handlers of one service with one MQTT connection, each in the partition it concerns."""

    def __init__(
        self,
        service: Service,
        *,
        partitions: Partitions,
        mqtt: Connection | BrokerPool,
        policy: Policy,
        zones: Zones,
        servers: Sequence[ServerStatus] = (ServerStatus(),),
        externals: Externals | None = None,
    ) -> None:
        self.service = service
        self.zones = zones
        self._partitions = partitions
        self.first = partitions.first
        self._mqtt = mqtt
        self._policy = policy
        self._servers = servers
        externals = externals or Externals()
        self._clock, self._dice = externals.clock, externals.dice
        self._locks = Locks()

    def subscription(self, delivery: Delivery) -> Subscription:
        """Return the subscription that `delivery` came by.

        Raises:
            LookupError: none of this service's, but one that another version made.
        """
        found = self.service.subscription(delivery.message.topic)
        if found is None:
            raise LookupError("a message that came by no subscription of this service")
        return found

    async def lay_aside(self, delivery: Delivery) -> None:
        """Keep what came by a subscription of another version as a dead letter.

        Not a worker's status: it comes where the end of a session, which waits for it, was
        interrupted (`broker/runtime/session_takeover.py`).
        """
        if topics.SERVICE.parse(delivery.message.topic) is None:
            unknown = Invalid(Code.BAD_TOPIC, "$", "No topic of this version of the service.")
            await self._dead_letter(delivery, unknown)
        delivery.acknowledge()

    def context(
        self,
        delivery: Delivery | None = None,
        principal: Principal = NOBODY,
        store: Store | None = None,
        broker_index: int = 0,
        *,
        notes: tuple[str, ...] = (),
    ) -> Context:
        """Return a context of this moment, in a partition (None: the first)."""
        return Context(
            store=store or self.first,
            partitions=self._partitions,
            policy=self._policy,
            zones=self.zones,
            now=self._clock.now(),
            clock=self._clock,
            principal=principal,
            message=delivery.message if delivery else None,
            received_at=delivery.received_at if delivery else 0.0,
            locks=self._locks,
            servers=self._servers,
            broker_index=broker_index,
            notes=notes,
        )

    def _home_of(self, topic: Topic[T], value: T) -> Store:
        """Return the partition in which a message is handled, as its topic declares."""
        if len(self._partitions) == 1:
            return self.first
        match topic.partition_key(value):
            case UUID() as incident:
                return self._partitions.of(incident)
            case Position(lat=lat, lon=lon):
                return self._partitions.at(lat, lon)
            case None:
                return self.first

    # -- one message ------------------------------------------------------------------------------

    async def deliver(self, delivery: Delivery, broker_index: int = 0) -> None:
        """Handle one MQTT message, to its end; `broker_index` is the MQTT broker that it came by."""
        subscription = self.subscription(delivery)
        handler = subscription.handler
        assert handler is not None
        metrics.handled(self.service.name, subscription.topic.name)

        async def handle() -> Effects:
            levels = levels_of(subscription.topic, delivery.message)
            principal = principal_of(subscription.topic, levels)
            value, notes = subscription.topic.read(delivery.message.payload)
            home = self._home_of(subscription.topic, value)
            effects = await handler(
                value, self.context(delivery, principal, home, broker_index, notes=notes)
            )
            return self._by_way_of(broker_index, principal, traced(effects, delivery.message))

        await self._settle(handle, [delivery], broker_index=broker_index)

    def _by_way_of(self, broker_index: int, principal: Principal, effects: Effects) -> Effects:
        """Send what is for the sender's own device by the MQTT broker that it speaks on."""
        if len(self._servers) == 1 or principal.role is not Role.PARTICIPANT:
            return effects
        mine = f"{topics.ROOT}/u/{principal.user}/down/"
        messages = [
            replace(one, broker_index=broker_index) if one.topic.startswith(mine) else one
            for one in effects.messages
        ]
        return Effects(messages, effects.record, effects.rest)

    async def deliver_batch(self, deliveries: Sequence[Delivery], broker_index: int = 0) -> None:
        """Handle several messages of one topic together; what is invalid is told on its own."""
        subscription = self.subscription(deliveries[0])
        handler, check = subscription.batch_handler, subscription.check
        assert handler is not None
        metrics.handled(self.service.name, subscription.topic.name, len(deliveries))
        topic, now = subscription.topic, self.context(broker_index=broker_index)
        valid: list[_Valid] = []
        for delivery in deliveries:
            try:
                principal = principal_of(topic, levels_of(topic, delivery.message))
                value, notes = topic.read(delivery.message.payload)
                if check is not None:
                    check(value, now.about(delivery, principal, notes))
            except Exception as error:  # noqa: BLE001 - one message must not fail the others
                await self._settle(_raising(error), [delivery], broker_index=broker_index)
            else:
                valid.append(_Valid(value, delivery, principal, notes))

        async def handle(some: Sequence[_Valid]) -> Effects:
            now = self.context(broker_index=broker_index)  # of this try: the first may be long ago
            return await handler(
                [(one.value, now.about(one.delivery, one.principal, one.notes)) for one in some]
            )

        async def one_by_one() -> None:
            for one in valid:
                await self._settle(
                    partial(handle, [one]), [one.delivery], broker_index=broker_index
                )

        if valid:
            good = [one.delivery for one in valid]
            await self._settle(
                partial(handle, valid), good, broker_index=broker_index, otherwise=one_by_one
            )

    async def _settle(
        self,
        handle: Callable[[], Awaitable[Effects]],
        deliveries: Sequence[Delivery],
        *,
        broker_index: int,
        otherwise: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """See deliveries to their end; `otherwise` is how, if together they are poison."""
        try:
            await self.persist(lambda: self._run(handle))
        except Invalid as error:
            for delivery in deliveries:
                await self._refuse(delivery, error, broker_index)
        except Exception as error:  # noqa: BLE001 - the one place: poison must not loop
            if otherwise is not None and len(deliveries) > 1:
                await otherwise()
                return
            self._log_failure("handler failed", error)
            for delivery in deliveries:
                await self._dead_letter(delivery, _internal(error))
        else:
            for delivery in deliveries:
                await self._has_worked(delivery)
        if retained := {one.message.topic for one in deliveries if one.message.retain}:
            await self.persist(partial(self._clear, retained, broker_index))
        for delivery in deliveries:
            delivery.acknowledge()

    async def _clear(self, retained: Iterable[str], broker_index: int) -> None:
        """Let the MQTT broker forget what devices published retained: it outlives what it says."""
        await self.publish(cleared(retained, broker_index))

    async def _refuse(self, delivery: Delivery, error: Invalid, broker_index: int) -> None:
        """Reject a message; one whose rejection cannot be told is poison too, and must not stay."""
        try:
            await self.persist(partial(self._reject, delivery, error, broker_index))
        except Exception as failure:  # noqa: BLE001 - as above
            self._log_failure("a refusal cannot be told", failure)
            await self._dead_letter(delivery, _internal(failure))

    async def _reject(self, delivery: Delivery, error: Invalid, broker_index: int) -> None:
        metrics.REJECTED.labels(self.service.name, error.code).inc()
        field = known_path(error.field)  # the sender's own words are no log's
        _log.info("rejected", service=self.service.name, code=error.code, field=field)
        topic = self.subscription(delivery).topic
        if refusal := refusal_of(
            delivery.message,
            topic,
            error,
            policy=self._policy,
            broker_index=broker_index,
            now=self._clock.now(),
        ):
            await self.publish([refusal])
        if error.code is Code.BAD_TOPIC:
            await self._keep_refused(delivery, error)
        else:
            await self._has_worked(delivery)

    async def _keep_refused(self, delivery: Delivery, error: Invalid) -> None:
        """Tell operators, once, of a sender that is none of ours, and keep nothing of what it says."""
        metrics.BAD_NAMES.labels(self.service.name).inc()
        message = delivery.message
        letter = letter_of_refused(
            message,
            error,
            service=self.service.name,
            replay_of=await self._replay_of(delivery),
            now=self._clock.now(),
        )
        if await self.first.dead_letters.keep(letter):
            metrics.DEAD_LETTERS.labels(self.service.name).inc()
            shape = shape_of(message.topic)
            _log.warning("message of a bad name", service=self.service.name, topic=shape)
            await self.publish([rejection_of(letter, len(message.payload))])

    # -- one event of the stream ------------------------------------------------------------------

    def worth_handling(self, entries: Sequence[StreamEntry]) -> list[StreamEntry]:
        """Leave out the entries that a later one of the same key makes superfluous.

        Not one that is a dead letter replayed: it has worked when it was handled itself.
        """
        newest: dict[Hashable, StreamEntry] = {}
        for entry in entries:
            key_of = self.service.newest_of.get(type(entry.event))
            key = key_of(entry.event) if key_of and entry.replay_of is None else entry.id
            newest[key] = entry
        return list(newest.values())

    async def consume(self, entry: StreamEntry, store: Store) -> None:
        """Handle one entry of a partition's stream, to its end; the caller acknowledges it."""
        if entry.event is None:
            await self._dead_letter(
                entry, Invalid(Code.NOT_JSON, "$", "Not an event of ours."), store
            )
            return
        chosen, event = self.service.event_handlers.get(type(entry.event)), entry.event
        try:
            if chosen is not None:
                context = partial(self.context, store=store)
                await self.persist(lambda: self._run(lambda: chosen(event, context())))
        except Exception as error:  # noqa: BLE001 - as above: an event may be poison too
            self._log_failure("event handler failed", error, entry=entry.id)
            await self._dead_letter(entry, _internal(error), store)
        else:
            if entry.replay_of is not None:
                await self.persist(partial(self._forget, entry.replay_of))

    async def run(
        self, handler: Callable[[Context], Awaitable[Effects]], store: Store, broker_index: int = 0
    ) -> None:
        """Run a handler that nothing came for, in one partition, about one MQTT broker."""

        async def run(_name: str) -> None:
            await self._run(lambda: handler(self.context(store=store, broker_index=broker_index)))

        await isolated(handler.__name__, run, what="work after a connection")

    async def tick(self, periodic: Callable[[Context], Awaitable[Effects]], store: Store) -> None:
        """Run a periodic handler once; what is unavailable now is tried at the next turn."""
        try:
            await self._run(lambda: periodic(self.context(store=store)))
        except UnavailableError as error:
            metrics.RETRIES.labels(self.service.name).inc()
            _log.warning("periodic work has to wait", service=self.service.name, why=str(error))
        except Exception as error:  # noqa: BLE001 - as above: the next turn must come
            self._log_failure("periodic work failed", error)

    # -- common -----------------------------------------------------------------------------------

    async def _run(self, handle: Callable[[], Awaitable[Effects]]) -> None:
        effects = await handle()
        if effects.rest is not None:
            await self._carry_out_all(effects)
        elif effects is not NOTHING:
            await self._carry_out(effects)

    async def _carry_out_all(self, effects: Effects) -> None:
        """Carry out effects and their rest, two portions at a time: the window stays full."""
        under_way: list[asyncio.Task[None]] = []
        try:
            while True:
                under_way.append(asyncio.create_task(self._carry_out(effects)))
                if effects.rest is None:
                    break
                effects = await effects.rest()
                if len(under_way) > 1:
                    await under_way.pop(0)
        finally:
            results = await asyncio.gather(*under_way, return_exceptions=True)
        for result in results:
            if result is not None:
                raise result

    async def _carry_out(self, effects: Effects) -> None:
        outcomes = await self.publish(effects.messages)
        if effects.record is not None:
            await effects.record(outcomes)

    async def publish(self, messages: Sequence[Message]) -> Sequence[PubAckReasonCode]:
        """Publish and return the MQTT broker's reason code for each; refusals are logged."""
        try:
            if len(messages) >= _BATCH_ALONE:
                outcomes = await self._mqtt.publish_batch(messages)
            else:
                futures = [self._mqtt.publish_nowait(message) for message in messages]
                outcomes = [await future for future in futures]
        except MqttError as error:
            raise UnavailableError(f"MQTT: {error}") from error
        for outcome in outcomes:
            if outcome.is_failure:
                metrics.REFUSED.labels(self.service.name, outcome.name).inc()
                _log.error(
                    "the MQTT broker refused a message",
                    service=self.service.name,
                    reason=outcome.name,
                )
        return outcomes

    async def persist(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Try until it works or is no longer ours to mend, with full jitter between the tries."""
        wait_s = _FIRST_RETRY_S
        while True:
            try:
                return await attempt()
            except UnavailableError as error:
                metrics.RETRIES.labels(self.service.name).inc()
                _log.warning("unavailable, trying again", service=self.service.name, why=str(error))
            await asyncio.sleep(self._dice.uniform(0, wait_s))
            wait_s = min(_LAST_RETRY_S, wait_s * 2)

    def _log_failure(self, event: str, error: Exception, **more: str) -> None:
        _log.error(event, service=self.service.name, exc_info=wordless(error), **more)

    async def _has_worked(self, delivery: Delivery) -> None:
        """Forget the dead letter that a message was, if an operator has replayed it."""
        if token := replay_token(delivery):
            await self.persist(partial(self.first.dead_letters.end_replay, token))

    async def _forget(self, letter: UUID) -> None:
        await self.first.dead_letters.drop([letter])

    async def _replay_of(self, source: Delivery | StreamEntry) -> UUID | None:
        if isinstance(source, StreamEntry):
            return source.replay_of
        token = replay_token(source)
        return await self.first.dead_letters.replayed_by(token) if token else None

    async def _dead_letter(
        self, source: Delivery | StreamEntry, error: Invalid, store: Store | None = None
    ) -> None:
        """Keep what cannot be handled, and tell the operators; `store` is whose stream it was on."""
        metrics.DEAD_LETTERS.labels(self.service.name).inc()

        async def keep() -> None:
            letter = letter_of(
                source,
                error,
                service=self.service.name,
                store=store,
                replay_of=await self._replay_of(source),
                now=self._clock.now(),
            )
            _log.error("dead letter", service=self.service.name, code=error.code, id=str(letter.id))
            await self.first.dead_letters.keep(letter)
            await self.publish([rejection_of(letter, len(letter.payload))])

        await self.persist(keep)


def _raising(error: Exception) -> Callable[[], Awaitable[Effects]]:
    async def handle() -> Effects:
        raise error

    return handle


def _internal(error: Exception) -> Invalid:
    return Invalid(Code.INTERNAL, "$", f"{type(error).__name__} in the service; see its log.")
