"""Promises broken on purpose: the checker must see each of them."""

import enum
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from broker.mqtt import Message
from broker.store import Posted
from broker.store.outbox import Outbox
from nabij.simulation.redis import Database, Word, raw
from nabij.simulation.scripts import commit, neighbourhood
from nabij.simulation.server import RedisServer
from nabij.simulation.strings import unpacked
from nabij.simulation.worker import Worker
from schemas import topics
from schemas.codec import encode


class Broken(enum.StrEnum):
    """Which promise is broken."""

    ACKNOWLEDGE_FIRST = "acknowledge-first"  # PUBACK and XACK before the effect
    PUBLISH_FIRST = "publish-first"  # the receipt before the commit
    NO_IDEMPOTENCY = "no-idempotency"  # a repeated report is a new one
    BELIEVE_PUBACK = "believe-puback"  # an escalation is done when the MQTT broker has it
    LOST_ALERT = "lost-alert"  # one alert is never sent, and recorded as sent


def break_world(broken: Broken | None, redis: RedisServer) -> None:
    """Break what the store promises."""
    if broken is Broken.NO_IDEMPOTENCY:
        redis.scripts["neighbourhood"] = _without_receipt
        redis.scripts["commit"] = _without_absence


def break_worker(broken: Broken | None, worker: Worker) -> None:
    """Break what a worker promises."""
    if broken is Broken.LOST_ALERT:
        worker.client.refuse = _Once(topics.ALERT.name)
    if broken is Broken.BELIEVE_PUBACK and worker.service.name == "police":
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


class _Once:
    """Swallows the first message whose topic ends with `name`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._done = False

    def __call__(self, message: Message) -> bool:
        if self._done or not message.topic.endswith(f"/{self._name}"):
            return False
        self._done = True
        return True


class _Credulous:
    """An outbox that waits for no reader's word: what was published once is removed."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outbox, name)

    async def take(self, now_ms: int) -> list[Posted]:
        await self._outbox.remove(await self._outbox.take(now_ms))
        return []


class _Hasty:
    """An incident store that tells the sender of a report before it commits."""

    def __init__(self, worker: Worker) -> None:
        assert worker.store is not None
        self._worker = worker
        self._incidents = worker.store.incidents
        self._told: set[UUID] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._incidents, name)

    async def commit_report(self, report: Any, filing: Any, **words: Any) -> int | None:
        if report.id not in self._told:
            self._told.add(report.id)
            topic = topics.RECEIPT.topic(user=filing.user)
            self._worker.client.publish_nowait(Message(topic, encode(filing.receipt)))
        return await self._incidents.commit_report(report, filing, **words)
