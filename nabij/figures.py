"""What /metrics reads from the store when it is asked: outbox, dead letters, backlog of each service.

Kept for some seconds, so that several scrapes ask Redis once. An alarm is a rule in
`ops/prometheus/rules.yml`.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Self

import structlog
from msgspec import Struct
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from broker.errors import ConfigError, UnavailableError
from broker.events import READERS
from broker.store import Store, partitions
from schemas import topics

KEPT_S = 3.0
ANSWER_S = 2.0

_log = structlog.get_logger(__name__)


class Figures(Struct, frozen=True, kw_only=True):
    """What there is in the store at one moment."""

    outbox: int
    late: int
    oldest_s: dict[str, float]  # by zone: the age of the oldest escalation that is not delivered
    dead_letters: int
    dead_letters_dropped: int
    backlog: dict[str, tuple[int, int]]  # by service: events not done, those in hand among them
    deadlines_late: int


class StoreFigures:
    """An async context manager: the store as /metrics reads it."""

    def __init__(self, url: str, count: int) -> None:
        self._url = url
        self._count = count
        self._stack = AsyncExitStack()
        self._stores: Sequence[Store] = ()
        self._read_at = float("-inf")
        self.latest: Figures | None = None  # None: Redis cannot be asked

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def refresh(self) -> None:
        """Read it anew, unless that was done a moment ago."""
        if time.monotonic() - self._read_at < KEPT_S:
            return
        try:
            async with asyncio.timeout(ANSWER_S):
                if not self._stores:
                    self._stores = await self._stack.enter_async_context(
                        partitions(self._url, self._count)
                    )
                self.latest = await _read(self._stores)
        except (UnavailableError, ConfigError, TimeoutError) as error:
            _log.debug("the store cannot be read for /metrics", why=str(error))
            self.latest = None
        self._read_at = time.monotonic()

    def collect(self) -> Iterator[Metric]:
        """Yield what was read last."""
        yield GaugeMetricFamily(
            "nabij_store_up", "Redis answers to whoever serves /metrics",
            value=float(self.latest is not None),
        )  # fmt: skip
        if self.latest is None:
            return
        now = self.latest
        for name, text, value in (
            ("nabij_outbox_messages", "Messages not recorded as delivered", now.outbox),
            ("nabij_outbox_late_messages", "Those of them that are due", now.late),
            ("nabij_dead_letters_kept", "Dead letters that wait for an operator", now.dead_letters),
            ("nabij_dead_letters_dropped", "Dead letters dropped unread", now.dead_letters_dropped),
            (
                "nabij_deadlines_late",
                "Deadlines that have passed and not fired",
                now.deadlines_late,
            ),
        ):
            yield GaugeMetricFamily(name, text, value=float(value))
        yield _by_label(
            "nabij_escalation_undelivered_seconds", "Age of the oldest undelivered escalation",
            "zone", now.oldest_s,
        )  # fmt: skip
        yield _by_label(
            "nabij_backlog_events", "Events that a service has not done", "service",
            {service: float(length) for service, (length, _) in now.backlog.items()},
        )  # fmt: skip
        yield _by_label(
            "nabij_backlog_in_hand", "Events that a service has read and not done", "service",
            {service: float(pending) for service, (_, pending) in now.backlog.items()},
        )  # fmt: skip


def _by_label(name: str, text: str, label: str, values: dict[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


async def _read(stores: Sequence[Store]) -> Figures:
    now_s = time.time()
    now_ms = int(now_s * 1000)
    letters = await stores[0].dead_letters.counts()
    waiting = [one for store in stores for one in await store.outbox.late_messages(now_ms)]
    return Figures(
        outbox=sum([await store.outbox.size() for store in stores]),
        late=sum([await store.outbox.late(now_ms) for store in stores]),
        oldest_s=_oldest_by_zone([(one.topic, now_s - one.due_ms / 1000) for one in waiting]),
        dead_letters=letters.kept,
        dead_letters_dropped=letters.dropped,
        backlog={service: await _backlog(stores, service) for service in READERS},
        deadlines_late=sum([len(await store.deadlines.due(now_ms - 1_000)) for store in stores]),
    )


async def _backlog(stores: Sequence[Store], service: str) -> tuple[int, int]:
    several = [await store.events.backlog(service) for store in stores]
    return sum(length for length, _ in several), sum(pending for _, pending in several)


def _oldest_by_zone(ages: Sequence[tuple[str, float]]) -> dict[str, float]:
    oldest: dict[str, float] = {}
    for topic, age_s in ages:
        if levels := topics.ESCALATION.parse(topic):
            zone = levels["zone"]
            oldest[zone] = max(oldest.get(zone, 0.0), age_s)
    return oldest
