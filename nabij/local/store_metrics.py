"""What /metrics reads from the store: outbox, dead letters, backlog of each service.

Kept for some seconds, so that several scrapes read Redis once. The alarms are in
`ops/prometheus/rules.yml`.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Self

import structlog
from msgspec import Struct
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from broker.core.health import Cause, Severity
from broker.errors import ConfigError, UnavailableError
from broker.store import Partitions, Reader, open_partitions
from schemas.taxonomy import Desk
from services import routes

KEPT_S = 3.0
ANSWER_S = 2.0

_log = structlog.get_logger(__name__)


class StoreSnapshot(Struct, frozen=True, kw_only=True):
    """The figures of the store at one moment."""

    outbox: int
    late: int
    oldest_s: dict[Reader, float]  # by desk: the age of the oldest message it has not confirmed
    unattended_s: dict[Reader, float]  # by desk: since when it has an alarm
    dead_letters: int
    dead_letters_dropped: int
    backlog: dict[str, tuple[int, int]]  # by service: events not done, and those being handled
    deadlines_late: int


class StoreFigures:
    """An async context manager: the store as /metrics reads it."""

    def __init__(self, url: str, count: int) -> None:
        self._url = url
        self._count = count
        self._stack = AsyncExitStack()
        self._stores: Partitions | None = None
        self._read_at = float("-inf")
        self.latest: StoreSnapshot | None = None  # None: Redis does not answer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def refresh(self) -> None:
        """Read the store again, unless that was done a moment ago."""
        if time.monotonic() - self._read_at < KEPT_S:
            return
        try:
            async with asyncio.timeout(ANSWER_S):
                if self._stores is None:
                    self._stores = await self._stack.enter_async_context(
                        open_partitions(self._url, self._count)
                    )
                self.latest = await _read(self._stores)
        except (UnavailableError, ConfigError, TimeoutError) as error:
            _log.debug("the store cannot be read for /metrics", why=str(error))
            self.latest = None
        self._read_at = time.monotonic()

    # long: one figure after another, with its name and help
    def collect(self) -> Iterator[Metric]:
        """Yield the figures that were read last."""
        yield GaugeMetricFamily(
            "nabij_store_up",
            "Redis answers the process that serves /metrics",
            value=float(self.latest is not None),
        )
        if self.latest is None:
            return
        now = self.latest
        for name, text, value in (
            ("nabij_outbox_messages", "Messages that no reader has confirmed", now.outbox),
            ("nabij_outbox_late_messages", "Those that are due and not sent again", now.late),
            ("nabij_dead_letters_kept", "Dead letters that wait for an operator", now.dead_letters),
            ("nabij_dead_letters_dropped", "Dead letters dropped unread", now.dead_letters_dropped),
            (
                "nabij_deadlines_late",
                "Deadlines that have passed and not fired",
                now.deadlines_late,
            ),
        ):
            yield GaugeMetricFamily(name, text, value=float(value))
        for desk, what in ((Desk.POLICE, "escalation"), (Desk.CITY, "case")):
            yield _by_label(
                f"nabij_{what}_undelivered_seconds",
                f"Age of the oldest undelivered {what}",
                "zone",
                {one.name: age for one, age in now.oldest_s.items() if one.kind == desk},
            )
        yield _by_label(
            "nabij_backlog_events",
            "Events that a service has not done",
            "service",
            {service: float(length) for service, (length, _) in now.backlog.items()},
        )
        yield _by_label(
            "nabij_backlog_in_hand",
            "Events that a service has read and not done",
            "service",
            {service: float(pending) for service, (_, pending) in now.backlog.items()},
        )

    def causes(self) -> Iterator[Cause]:
        """Yield desks that confirm nothing of what is sent to them, as read last."""
        for desk, since_s in self.latest.unattended_s.items() if self.latest else ():
            yield Cause(
                code="unattended",
                what=f"for {since_s:.0f} s no desk has taken what is sent to {desk}",
                mend="connect a desk of that zone (`nabij doctor` lists zones without one); one that "
                f"is connected must confirm by id on {desk.confirms_on}",
                severity=Severity.DEGRADES,
            )


def _by_label(name: str, text: str, label: str, values: dict[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


async def _read(stores: Partitions) -> StoreSnapshot:
    now_s = time.time()
    now_ms = int(now_s * 1000)
    letters = await stores[0].dead_letters.counts()
    undelivered = await stores.undelivered()
    alarms = await stores[0].desks.alarms()
    return StoreSnapshot(
        outbox=sum([await store.outbox.size() for store in stores]),
        late=sum([await store.outbox.late(now_ms) for store in stores]),
        oldest_s={one.reader: now_s - one.oldest_ms / 1000 for one in undelivered.values()},
        unattended_s={desk: now_s - alarm.since_ms / 1000 for desk, alarm in alarms.items()},
        dead_letters=letters.kept,
        dead_letters_dropped=letters.dropped,
        backlog={service: await _backlog(stores, service) for service in routes().readers},
        deadlines_late=sum([len(await store.deadlines.due(now_ms - 1_000)) for store in stores]),
    )


async def _backlog(stores: Partitions, service: str) -> tuple[int, int]:
    several = [await store.events.backlog(service) for store in stores]
    return sum(length for length, _ in several), sum(pending for _, pending in several)
