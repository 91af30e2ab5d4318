"""What has come down to a participant's device: alerts, group events and questions, each once.

With a journal "once" holds over restarts, and gaps in a group's sequence are noted. A crash between
showing a message and noting it shows it twice.
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


NOBODY = Listeners()


class DeviceInbox:
    """Holds the newest `KEPT` of each kind; `repeats` counts what came again, by id.

    An alert in full and in short has one id, and is heard once in each form that the device takes.
    `on_gap` is called when a group event came before others that it follows.
    """

    def __init__(
        self, journal: Journal | None, listeners: Listeners, *, on_gap: Callable[[], None]
    ) -> None:
        self.alerts: dict[UUID, Alert] = {}
        self.briefs: dict[UUID, Brief] = {}
        self.questions: dict[UUID, Question] = {}
        self.groups: dict[UUID, list[GroupEvent]] = {}
        self.repeats: Counter[UUID] = Counter()
        self.missing: set[tuple[UUID, int]] = set()  # group events that others came after
        self._outside: set[UUID] = set()  # groups that we have left
        self._journal = journal
        self._listeners = listeners
        self._on_gap = on_gap

    def sync_since(self, since: datetime, alerts: Iterable[UUID]) -> Sync:
        """Return a sync that says what has come in this life: not to be repeated, nor carried twice.

        `alerts` are the ids of those that came, the newest first.
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
        """Hear an alert in full."""
        alert = read(topics.ALERT, incoming.payload)
        self._hear(
            self.alerts,
            alert,
            key=alert.id,
            listener=self._listeners.on_alert,
            at=incoming.received_at,
        )

    def take_brief(self, incoming: Incoming) -> None:
        """Hear an alert in short."""
        brief = read(topics.BRIEF, incoming.payload)
        # In the journal the alert's own id is that of the full form.
        key = uuid5(brief.id, "brief")
        self._hear(
            self.briefs, brief, key=key, listener=self._listeners.on_brief, at=incoming.received_at
        )

    def take_question(self, incoming: Incoming) -> Question:
        """Hear a question; return it, also when it has come before: it is to be confirmed."""
        question = read(topics.QUESTION, incoming.payload)
        self._hear(
            self.questions,
            question,
            key=question.id,
            listener=self._listeners.on_question,
            at=incoming.received_at,
        )
        return question

    def take_group(self, incoming: Incoming) -> None:
        """Hear a group event, whatever is missing before it."""
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

    def _hear(
        self,
        kept: dict[UUID, _M],
        message: _M,
        *,
        key: UUID,
        listener: Callable[[_M, float], None] | None,
        at: float,
    ) -> None:
        """Show what has not come before, as `key` in the journal, then keep it; count what has.

        What a listener fails to show is neither known nor confirmed: it comes again.
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
        """Whether this has come before the device was entered."""
        return self._journal is not None and self._journal.has_seen(key)

    def _note_seen(self, key: UUID) -> None:
        if self._journal is not None:
            self._journal.note_seen(key)

    def _note_repeat(self, identifier: UUID) -> None:
        self.repeats[identifier] += 1
        _forget_oldest(self.repeats)

    def _note_heard(self, event: GroupEvent) -> None:
        """Remember how far this group was heard; ask for what is missing in between.

        Nothing is missing for who was outside in between: after leaving, until joining again.
        """
        if self._journal is None:
            return
        mine = event.you is not None and event.member == event.you
        was_outside = event.incident in self._outside
        if mine and event.kind is GroupEventKind.LEFT:
            self._outside.add(event.incident)
        elif mine and event.kind is GroupEventKind.JOINED:
            self._outside.discard(event.incident)
        newest = self._journal.heard.get(event.incident)
        self.missing.discard((event.incident, event.sequence))
        if newest is not None and event.sequence > newest + 1 and not was_outside:
            between = range(newest + 1, event.sequence)
            self.missing.update((event.incident, number) for number in between)
            self._on_gap()
        if newest is None or event.sequence > newest:
            self._journal.note_heard(event.incident, event.sequence)


def _forget_oldest(kept: dict[UUID, Any]) -> list[UUID]:
    """Keep the newest `KEPT` of what came; return the rest. A device runs for months."""
    forgotten = [identifier for identifier, _ in zip(kept, range(len(kept) - KEPT), strict=False)]
    for identifier in forgotten:
        del kept[identifier]
    return forgotten
