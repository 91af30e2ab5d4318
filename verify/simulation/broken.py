"""Promises broken on purpose: the checker must see each of them."""

import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from broker.core.policy import Policy
from broker.mqtt import Message
from broker.store import OutboxMessage, Update
from broker.store.incident_store import ReportCommit
from broker.store.outbox import Outbox
from schemas import topics
from schemas.codec import encode
from verify.simulation.redis_model import Database, Word, raw
from verify.simulation.redis_model_server import RedisServer
from verify.simulation.script_models import commit, neighbourhood
from verify.simulation.simulated_worker import SimulatedWorker
from verify.simulation.strings import unpacked

Tamper = Callable[[Message], Sequence[Message]]
Honest = Callable[..., Awaitable[Any]]

_AGES_S = 10**8


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
    OLD_IS_NEW = "old-is-new"  # whatever was seen when, people are alerted
    WORDY_BRIEF = "wordy-brief"  # a short alert carries the reporter's words
    KEEP_RETAINED = "keep-retained"  # what devices publish retained stays at the MQTT broker
    LET_DEAD_LIE = "let-dead-lie"  # nobody takes over what a dead worker has in hand
    NO_NOTES = "no-notes"  # who slips is not told


def break_world(broken: Broken | None, redis: RedisServer) -> None:
    """Break what the store promises."""
    if broken is Broken.NO_IDEMPOTENCY:
        redis.scripts["neighbourhood"] = _without_receipt
        redis.scripts["commit"] = _without_absence


def break_worker(broken: Broken | None, worker: SimulatedWorker) -> None:
    """Break what a worker promises."""
    if broken in _TAMPERING:
        worker.client.tamper = _TAMPERING[broken]()
    if broken in _ACROSS:
        name, wrap = _ACROSS[broken]
        setattr(worker.partitions, name, wrap(getattr(worker.partitions, name)))
    if broken is Broken.BELIEVE_PUBACK and worker.service.name == "relay":
        assert worker.store is not None
        worker.store.outbox = _Credulous(worker.store.outbox)  # type: ignore[assignment]
    if broken is Broken.PUBLISH_FIRST and worker.service.name == "intake":
        assert worker.store is not None
        worker.store.incidents = _Hasty(worker)  # type: ignore[assignment]


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
    """Swallows the first alert."""

    def __init__(self) -> None:
        self._done = False

    def __call__(self, message: Message) -> Sequence[Message]:
        if self._done or not topics.ALERT.parse(message.topic):
            return (message,)
        self._done = True
        return ()


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


def _sends_nothing(_: Honest) -> Honest:
    async def send_again(*_: Any, **__: Any) -> int:
        return 0

    return send_again


def _keeps_places(honest: Honest) -> Honest:
    async def update(updates: Sequence[Update], **words: Any) -> Any:
        return await honest([one for one in updates if one.place is not None], **words)

    return update


def _tells_all(honest: Honest) -> Honest:
    async def missed(*words: Any, **more: Any) -> Any:
        found = await honest(*words, **more)
        return [one._replace(member=replace(one.member, hears_from=1)) for one in found]

    return missed


_ACROSS: dict[Broken | None, tuple[str, Callable[[Honest], Honest]]] = {
    Broken.DEAF_SYNC: ("send_again", _sends_nothing),
    Broken.KEEP_PLACE: ("update", _keeps_places),
    Broken.WHOLE_HISTORY: ("missed", _tells_all),
}


class _Credulous:
    """An outbox that waits for no reader's word: what was published once is removed."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outbox, name)

    async def take(self, now_ms: int) -> list[OutboxMessage]:
        await self._outbox.remove(await self._outbox.take(now_ms))
        return []


class _Hasty:
    """An incident store that tells the sender of a report before it commits."""

    def __init__(self, worker: SimulatedWorker) -> None:
        assert worker.store is not None
        self._worker = worker
        self._incidents = worker.store.incidents
        self._told: set[UUID] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._incidents, name)

    async def commit_report(self, made: ReportCommit, *words: Any, **more: Any) -> int | None:
        receipt = made.receipt
        if receipt.message not in self._told:
            self._told.add(receipt.message)
            topic = topics.RECEIPT.topic(user=receipt.user)
            self._worker.client.publish_nowait(Message(topic, encode(receipt.receipt)))
        return await self._incidents.commit_report(made, *words, **more)
