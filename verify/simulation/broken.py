"""Promises broken on purpose: the checker must see each of them."""

import asyncio
import enum
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any
from unittest.mock import patch
from uuid import UUID

from msgspec.structs import replace

from broker.core import membership
from broker.core.membership import Member, Part
from broker.core.policy import Policy
from broker.edge.connection import Connection as EdgeConnection
from broker.edge.records import Key, Record, SessionRecord
from broker.mqtt import Connection, Delivery, Message, PubAckReasonCode
from broker.runtime.session_takeover import TakeOver
from broker.runtime.worker_loops import WorkerLoops
from broker.store import Partitions, Store, StreamEntry, Update
from broker.store.incident_store import IncidentStore, ReportCommit
from broker.store.outbox import Outbox
from broker.store.outbox_messages import Due
from schemas import topics
from schemas.codec import encode
from schemas.messages import GroupEventKind, GroupRole, Reply, ReplyKind
from services import groups, intake
from verify.simulation.memory_journal import MemoryJournal
from verify.simulation.redis_model import Database, Word, raw
from verify.simulation.redis_model_server import RedisServer
from verify.simulation.script_models import commit, neighbourhood
from verify.simulation.simulated_worker import SimulatedWorker
from verify.simulation.strings import unpacked

Tamper = Callable[[Message], Sequence[Message]]
Honest = Callable[..., Awaitable[Any]]
Outcome = asyncio.Future[PubAckReasonCode]

_AGES_S = 10**8
_MOMENT_S = 0.05  # between an acknowledgement that comes first and the effect


class Broken(enum.StrEnum):
    """Which promise is broken."""

    ACKNOWLEDGE_FIRST = "acknowledge-first"  # PUBACK and XACK before the effect
    PUBLISH_FIRST = "publish-first"  # the receipt before the commit
    NO_IDEMPOTENCY = "no-idempotency"  # a repeated report is a new one
    BELIEVE_PUBACK = "believe-puback"  # an escalation is done when the MQTT broker has it
    LOST_ALERT = "lost-alert"  # one alert is never sent, and recorded as sent
    DEAF_SYNC = "deaf-sync"  # a desk that asks what it missed is answered, and sent nothing
    KEEP_PLACE = "keep-place"  # a withdrawal is accepted, and the place stays
    GOSSIP = "gossip"  # what is said is said to everybody
    WHOLE_HISTORY = "whole-history"  # who joins hears what was said before
    TELL_LEAVERS = "tell-leavers"  # who has left a group still hears what is said in it
    IGNORE_LEAVING = "ignore-leaving"  # who leaves is told that they have, and stays
    HEAR_ABSENCE = "hear-absence"  # who accepts again hears what was said while they were away
    REPORT_HEARS_ABSENCE = "report-hears-absence"  # so does who comes back by a report
    REPORT_HELPS = "report-helps"  # who has left and reports again counts as a helper
    NO_CALL_AGAIN = "no-call-again"  # nobody else is called when the last helper leaves
    OLD_IS_NEW = "old-is-new"  # whatever was seen when, people are alerted
    WORDY_BRIEF = "wordy-brief"  # a short alert carries the reporter's words
    KEEP_RETAINED = "keep-retained"  # what devices publish retained stays at the MQTT broker
    LET_DEAD_LIE = "let-dead-lie"  # nobody takes over what a dead worker has in hand
    NO_NOTES = "no-notes"  # who slips is not told
    ACKNOWLEDGE_UNWRITTEN = (
        "acknowledge-unwritten"  # PUBACK before the MQTT broker's journal has it
    )
    FORGET_SESSION = "forget-session"  # the MQTT broker comes back without one of its sessions


@contextmanager
def promises_broken(
    broken: Broken | None, redis: RedisServer, workers: Mapping[str, SimulatedWorker]
) -> Iterator[None]:
    """Break what the store, a worker, its service or the MQTT broker promises, while this lasts."""
    if broken is Broken.NO_IDEMPOTENCY:
        redis.scripts["neighbourhood"] = _without_receipt
        redis.scripts["commit"] = _without_absence
    with ExitStack() as stack:
        for owner, name, wrap in _PATCHES.get(broken, ()):
            honest = getattr(owner, name)
            stack.enter_context(patch.object(owner, name, wrap(honest)))
        if broken in _TAMPERING:
            tamper = _TAMPERING[broken]()
            one_by_one = _tampered(Connection.publish_nowait, tamper)
            stack.enter_context(patch.object(Connection, "publish_nowait", one_by_one))
            batches = _tampered_batch(Connection.publish_batch, tamper)
            stack.enter_context(patch.object(Connection, "publish_batch", batches))
        if broken is Broken.PUBLISH_FIRST:
            hasty = _hasty(IncidentStore.commit_report, workers)
            stack.enter_context(patch.object(IncidentStore, "commit_report", hasty))
        yield


def _without_receipt(database: Database, keys: Sequence[str], words: Sequence[Word]) -> list[Any]:
    _, *rest = neighbourhood(database, keys, words)
    return [[], *rest]


def _without_absence(database: Database, keys: Sequence[str], words: Sequence[Word]) -> list[Any]:
    guards, _calls, _references = unpacked(raw(words[0]))
    for kind, key, *_ in guards:
        if kind == b"absent" and b":receipt:" in key:
            database.do_del(key)
    return commit(database, keys, words)


def broken_policy(broken: Broken | None, policy: Policy) -> Policy:
    """Return the policy by which the services act, while the checker has the honest one."""
    if broken is not Broken.OLD_IS_NEW:
        return policy
    timers = replace(policy.file.timers, alert_if_seen_within_s=_AGES_S)
    return Policy(replace(policy.file, timers=timers))


class _LosesAnAlert:
    """Swallows the first alert, however often it is sent."""

    def __init__(self) -> None:
        self._lost: tuple[str, UUID] | None = None

    def __call__(self, message: Message) -> Sequence[Message]:
        if not topics.ALERT.parse(message.topic):
            return (message,)
        alert = message.topic, topics.ALERT.decode(message.payload).id
        self._lost = self._lost or alert
        return () if alert == self._lost else (message,)


def _gossip(message: Message) -> Sequence[Message]:
    if not topics.GROUP.parse(message.topic):
        return (message,)
    return [replace(message, topic=topics.GROUP.topic(user=f"p{number}")) for number in range(3)]


def _wordy(message: Message) -> Sequence[Message]:
    if not topics.BRIEF.parse(message.topic):
        return (message,)
    return (replace(message, payload=message.payload[:-1] + b',"text":"report 0"}'),)


def _keep_retained(message: Message) -> Sequence[Message]:
    return () if message.clears and "/up/" in message.topic else (message,)


def _without_notes(message: Message) -> Sequence[Message]:
    if not topics.RECEIPT.parse(message.topic):
        return (message,)
    told = topics.RECEIPT.decode(message.payload)
    return (replace(message, payload=encode(replace(told, notes=()))),)


_TAMPERING: dict[Broken | None, Callable[[], Tamper]] = {
    Broken.LOST_ALERT: _LosesAnAlert,
    Broken.GOSSIP: lambda: _gossip,
    Broken.WORDY_BRIEF: lambda: _wordy,
    Broken.KEEP_RETAINED: lambda: _keep_retained,
    Broken.NO_NOTES: lambda: _without_notes,
}


def _tampered(honest: Callable[..., Outcome], tamper: Tamper) -> Callable[..., Outcome]:
    def publish_nowait(self: Connection, message: Message) -> Outcome:
        outcome: Outcome = asyncio.get_running_loop().create_future()
        outcome.set_result(PubAckReasonCode.SUCCESS)
        for one in tamper(message):
            outcome = honest(self, one)
        return outcome

    return publish_nowait


def _tampered_batch(honest: Honest, tamper: Tamper) -> Honest:
    async def publish_batch(
        self: Connection, messages: Sequence[Message]
    ) -> list[PubAckReasonCode]:
        sent = [[*tamper(one)] for one in messages]
        outcomes = iter(await honest(self, [one for several in sent for one in several]))
        return [
            max((next(outcomes) for _ in several), default=PubAckReasonCode.SUCCESS)
            for several in sent
        ]

    return publish_batch


# Each wraps a method of the product: `honest` takes its `self` first.


def _sends_nothing(_: Honest) -> Honest:
    async def send_again(*_: Any, **__: Any) -> int:
        return 0

    return send_again


def _keeps_places(honest: Honest) -> Honest:
    async def update(self: Partitions, updates: Sequence[Update], **words: Any) -> Any:
        return await honest(self, [one for one in updates if one.place is not None], **words)

    return update


def _tells_all(honest: Honest) -> Honest:
    async def missed(*words: Any, **more: Any) -> Any:
        found = await honest(*words, **more)
        return [one._replace(member=replace(one.member, hears_from=1)) for one in found]

    return missed


def _with_who_left(honest: Callable[..., list[str]]) -> Callable[..., list[str]]:
    def hearers(people: Mapping[str, Member], sequence: int) -> list[str]:
        left = [user for user, member in people.items() if member.part is Part.LEFT]
        return [*honest(people, sequence), *left]

    return hearers


_Replied = Callable[..., tuple[Member, GroupEventKind | None]]


def _lets_nobody_leave(honest: _Replied) -> _Replied:
    def replied(
        people: Mapping[str, Member], user: str, reply: Reply, **more: int
    ) -> tuple[Member, GroupEventKind | None]:
        if reply.kind is ReplyKind.LEFT:
            return people[user], None
        return honest(people, user, reply, **more)

    return replied


def _hears_absence(honest: _Replied) -> _Replied:
    def replied(
        people: Mapping[str, Member], user: str, reply: Reply, **more: int
    ) -> tuple[Member, GroupEventKind | None]:
        after, event = honest(people, user, reply, **more)
        before = people[user]
        return (replace(after, hears_from=before.hears_from) if before.name else after), event

    return replied


def _reports_and_hears_absence(honest: Callable[..., Member]) -> Callable[..., Member]:
    def reporter(people: Mapping[str, Member], user: str, **more: int) -> Member:
        after, before = honest(people, user, **more), people.get(user)
        return replace(after, hears_from=before.hears_from) if before and before.name else after

    return reporter


def _helps_by_report(honest: Callable[..., Member]) -> Callable[..., Member]:
    def reporter(people: Mapping[str, Member], user: str, **more: int) -> Member:
        after = honest(people, user, **more)
        came_to_help = after.role is GroupRole.RESPONDER
        return replace(after, part=Part.HELPER) if came_to_help else after

    return reporter


def _never(_: Callable[..., datetime | None]) -> Callable[..., datetime | None]:
    return lambda *_, **__: None


def _waits_for_no_word(honest: Honest) -> Honest:
    """What was published once is removed, whatever its reader says."""

    async def take(self: Outbox, now_ms: int, **options: Any) -> list[Due]:
        await self.remove([one.message for one in await honest(self, now_ms, **options)])
        return []

    return take


def _acknowledges_messages(honest: Honest) -> Honest:
    async def receive(self: Connection, max_items: int) -> list[Delivery]:
        deliveries: list[Delivery] = await honest(self, max_items)
        for delivery in deliveries:
            delivery.acknowledge()
        await asyncio.sleep(_MOMENT_S)
        return deliveries

    return receive


def _acknowledges_events(honest: Honest) -> Honest:
    async def consume(
        self: WorkerLoops, entries: Sequence[StreamEntry], store: Store, *words: Any
    ) -> None:
        service = self._service.name
        await store.events.acknowledge(service, [entry.id for entry in entries])
        await asyncio.sleep(_MOMENT_S)
        await honest(self, entries, store, *words)

    return consume


def _does_nothing(_: Honest) -> Honest:
    async def forever(*_: Any) -> None:
        await asyncio.Event().wait()

    return forever


def _hasty(honest: Honest, workers: Mapping[str, SimulatedWorker]) -> Honest:
    """Tell the sender of a report before it is committed."""
    told: set[UUID] = set()

    async def commit_report(
        self: IncidentStore, made: ReportCommit, *words: Any, **more: Any
    ) -> int | None:
        receipt = made.receipt
        if receipt.message not in told:
            told.add(receipt.message)
            topic = topics.RECEIPT.topic(user=receipt.user)
            message = Message(topic, encode(receipt.receipt))
            for connection in workers["intake-1"].connections:
                connection.publish_nowait(message)
        committed: int | None = await honest(self, made, *words, **more)
        return committed

    return commit_report


def _waits_for_no_journal(honest: Callable[..., None]) -> Callable[..., None]:
    def answer(self: EdgeConnection, data: bytes, *, waits: bool, **more: bool) -> None:
        del waits
        honest(self, data, waits=False, **more)

    return answer


def _skips_a_session(honest: Callable[..., Iterator[Record]]) -> Callable[..., Iterator[Record]]:
    def read(self: MemoryJournal) -> Iterator[Record]:
        skipped: Key | None = None
        for record in honest(self):
            if isinstance(record, SessionRecord):
                skipped = skipped or record.number
                if record.number == skipped:
                    continue
            yield record

    return read


_PATCHES: dict[Broken | None, list[tuple[Any, str, Callable[..., Callable[..., Any]]]]] = {
    Broken.ACKNOWLEDGE_FIRST: [
        (Connection, "receive", _acknowledges_messages),
        (WorkerLoops, "_consume", _acknowledges_events),
    ],
    Broken.BELIEVE_PUBACK: [(Outbox, "take", _waits_for_no_word)],
    Broken.DEAF_SYNC: [(Partitions, "send_again", _sends_nothing)],
    Broken.KEEP_PLACE: [(Partitions, "update", _keeps_places)],
    Broken.WHOLE_HISTORY: [(Partitions, "missed", _tells_all)],
    Broken.TELL_LEAVERS: [(membership, "hearers", _with_who_left)],
    Broken.IGNORE_LEAVING: [(membership, "replied", _lets_nobody_leave)],
    Broken.HEAR_ABSENCE: [(membership, "replied", _hears_absence)],
    Broken.REPORT_HEARS_ABSENCE: [(intake, "reporter", _reports_and_hears_absence)],
    Broken.REPORT_HELPS: [(intake, "reporter", _helps_by_report)],
    Broken.NO_CALL_AGAIN: [(groups, "accept_again_by", _never)],
    Broken.LET_DEAD_LIE: [
        (WorkerLoops, "_take_over", _does_nothing),
        (TakeOver, "take_over", _does_nothing),
    ],
    Broken.ACKNOWLEDGE_UNWRITTEN: [(EdgeConnection, "answer", _waits_for_no_journal)],
    Broken.FORGET_SESSION: [(MemoryJournal, "read", _skips_a_session)],
}
