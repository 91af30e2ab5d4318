"""What a participant's device has received: alerts, group events and questions, each once.

With a journal "once" holds across restarts, and gaps in a group's sequence are noticed. A crash
between showing a message and noting it shows the message twice.
"""

import bisect
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID, uuid5

from devices.device_connection import Incoming
from devices.journal import Journal, OnEntry
from devices.reading import read
from schemas import topics
from schemas.messages import Alert, Brief, GroupEvent, GroupEventKind, Question, Receipt, Sync

KEPT = 200  # alerts, briefs, questions, groups and repeats
_NAMED, _NAMED_EVENTS = 200, 50  # alerts and groups in a sync, and events of each

_M = TypeVar("_M", Alert, Brief, Question)

OnAlert = Callable[[Alert, float], None]
OnBrief = Callable[[Brief, float], None]
OnGroup = Callable[[GroupEvent, float], None]
OnQuestion = Callable[[Question, float], None]
OnReceipt = Callable[[Receipt, float], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Listeners:
    """What a participant's device calls; see `Participant`. Each is a plain and quick function."""

    on_alert: OnAlert | None = None
    on_brief: OnBrief | None = None
    on_group: OnGroup | None = None
    on_question: OnQuestion | None = None
    on_receipt: OnReceipt | None = None
    on_journaled: OnEntry | None = None
    on_unconfirmed: OnEntry | None = None
    on_expired: OnEntry | None = None


NO_LISTENERS = Listeners()


class DeviceInbox:
    """Holds the newest `KEPT` of each kind; `repeats` counts what came again, by id.

    An alert has the same id in full and in short, and is taken once in each form that the device
    subscribes to. `on_gap` is called when a group event came and one before it did not.
    """

    def __init__(
        self, journal: Journal | None, listeners: Listeners, *, on_gap: Callable[[], None]
    ) -> None:
        self.alerts: dict[UUID, Alert] = {}
        self.briefs: dict[UUID, Brief] = {}
        self.questions: dict[UUID, Question] = {}
        self.groups: dict[UUID, list[GroupEvent]] = {}
        self.repeats: Counter[UUID] = Counter()
        self.missing: set[tuple[UUID, int]] = set()  # group events whose successors have come
        self._outside: set[UUID] = set()  # groups that we have left
        self._journal = journal
        self._listeners = listeners
        self._on_gap = on_gap

    def sync_since(self, since: datetime, alerts: Iterable[UUID]) -> Sync:
        """Return a sync that names what has come since entering, so that it is not sent again.

        `alerts` are the ids of received alerts, the newest first.
        """
        return Sync(
            since=since,
            alerts=frozenset(itertools.islice(alerts, _NAMED)),
            groups={
                incident: frozenset(
                    event.sequence for event in self.groups[incident][-_NAMED_EVENTS:]
                )
                for incident in itertools.islice(reversed(self.groups), _NAMED)
            },
        )

    def take_alert(self, incoming: Incoming) -> None:
        """Take an alert in full."""
        alert = read(topics.ALERT, incoming.payload)
        self._take(
            self.alerts,
            alert,
            key=alert.id,
            listener=self._listeners.on_alert,
            at=incoming.received_at,
        )

    def take_brief(self, incoming: Incoming) -> None:
        """Take an alert in short."""
        brief = read(topics.BRIEF, incoming.payload)
        # In the journal the alert's own id stands for the full form.
        key = uuid5(brief.id, "brief")
        self._take(
            self.briefs, brief, key=key, listener=self._listeners.on_brief, at=incoming.received_at
        )

    def take_question(self, incoming: Incoming) -> Question:
        """Take a question; return it, also when it is a repeat: each is confirmed."""
        question = read(topics.QUESTION, incoming.payload)
        self._take(
            self.questions,
            question,
            key=question.id,
            listener=self._listeners.on_question,
            at=incoming.received_at,
        )
        return question

    def take_group(self, incoming: Incoming) -> None:
        """Take a group event, even if events before it are missing."""
        event = read(topics.GROUP, incoming.payload)
        known_ids = (known.id for known in reversed(self.groups.get(event.incident, [])))
        if event.id in known_ids or self._came_before(event.id):
            self._note_repeat(event.id)
            return
        if self._listeners.on_group:
            self._listeners.on_group(event, incoming.received_at)
        self._note_seen(event.id)
        self._note_heard(event)
        events = self.groups.setdefault(event.incident, [])
        bisect.insort(events, event, key=lambda known: known.sequence)
        self._outside.difference_update(_forget_oldest(self.groups))

    def _take(
        self,
        kept: dict[UUID, _M],
        message: _M,
        *,
        key: UUID,
        listener: Callable[[_M, float], None] | None,
        at: float,
    ) -> None:
        """Show a new message, note it in the journal as `key` and keep it; count a repeat.

        If the listener raises, the message is neither noted nor confirmed, and comes again.
        """
        if message.id in kept or self._came_before(key):
            self._note_repeat(message.id)
            return
        if listener:
            listener(message, at)
        self._note_seen(key)
        kept[message.id] = message
        _forget_oldest(kept)

    def _came_before(self, key: UUID) -> bool:
        """Whether this came before the device was entered."""
        return self._journal is not None and self._journal.has_seen(key)

    def _note_seen(self, key: UUID) -> None:
        if self._journal is not None:
            self._journal.note_seen(key)

    def _note_repeat(self, identifier: UUID) -> None:
        self.repeats[identifier] += 1
        _forget_oldest(self.repeats)

    def _note_heard(self, event: GroupEvent) -> None:
        """Note the newest event of this group; ask for missing events before it.

        Nothing is missing for a member who had left and came back in between.
        """
        if self._journal is None:
            return
        mine = event.you is not None and event.member == event.you
        was_outside = event.incident in self._outside
        newest = self._journal.heard.get(event.incident)
        if mine and event.kind is GroupEventKind.LEFT:
            self._outside.add(event.incident)
        elif newest is None or event.sequence > newest:  # also after a report, which is no joining
            self._outside.discard(event.incident)
        self.missing.discard((event.incident, event.sequence))
        if newest is not None and event.sequence > newest + 1 and not was_outside:
            between = range(newest + 1, event.sequence)
            self.missing.update((event.incident, number) for number in between)
            self._on_gap()
        if newest is None or event.sequence > newest:
            self._journal.note_heard(event.incident, event.sequence)


def _forget_oldest(kept: dict[UUID, Any]) -> list[UUID]:
    """Keep the newest `KEPT` entries; return the ids of the rest. A device runs for months."""
    forgotten = [identifier for identifier, _ in zip(kept, range(len(kept) - KEPT), strict=False)]
    for identifier in forgotten:
        del kept[identifier]
    return forgotten
