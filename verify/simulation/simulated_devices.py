"""Participants' devices: they report, move, answer and talk, and log what they hear."""

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

from broker.mqtt import Message
from schemas import topics
from schemas.codec import encode
from schemas.messages import (
    Alert,
    Answer,
    Availability,
    Brief,
    Form,
    GroupEvent,
    GroupEventKind,
    GroupMessage,
    Outcome,
    Position,
    Presence,
    Question,
    Receipt,
    Reply,
    ReplyKind,
    Report,
    Subject,
    Sync,
)
from schemas.taxonomy import Audience
from schemas.topics import Topic
from verify.oracle.geofence import cell_at
from verify.oracle.observations import (
    AlertSeen,
    GroupEventSeen,
    MessageSent,
    PresenceSent,
    QuestionSeen,
    ReceiptSeen,
    ReportCreated,
)
from verify.simulation.sender import Ground, Sender
from verify.simulation.simulation_logs import DeviceLog
from verify.simulation.virtual_time import EPOCH_S, moment
from verify.world.exercised import sent_topics

_BEHIND_S = (0.0, 0.0, 60.0)  # so far behind are devices' clocks
_ASKING = 0.8  # of those who hear that somebody leaves, so many say something
_ADDING = 0.4  # of the reports, of so many their reporter says more
_AWAY_S = (0.5, 2.5)  # so soon who comes back does
_ODD = 0.15  # of the reports, so many have a misspelt field and an accuracy that is none
_RETAINED = 0.1  # so many reports and presences are published retained
_GAP_S = 1.5  # so long a gap in a group's events may stay open
_SYNC_S = 6  # so long a sync is worth answering
_JSON: dict[type[Any], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in (Alert, Brief, GroupEvent, Question, Receipt)
}
_TOPICS = tuple(one for one in sent_topics() if "{user}" in one.template)


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How a person answers alerts: of so many, how many do what, and how long helpers stay."""

    answering: float = 0.9  # of the alerted
    answers: Sequence[ReplyKind] = (ReplyKind.ACCEPTED, ReplyKind.ACCEPTED, ReplyKind.DECLINED)
    leaving: float = 0.3  # of those who accept
    stays_s: tuple[float, float] = (1.0, 3.0)
    reporting: float = 0.5  # of those who leave
    coming_back: float = 0.5  # of those who leave and do not report again


class SimulatedParticipant(Sender):
    """A participant; `p0` has a small device, which subscribes to alerts in short alone."""

    def __init__(self, ground: Ground, user: str) -> None:
        self.log = DeviceLog(user)
        self.user = user
        self.is_small = user == "p0"
        self.habits = Habits()
        receipt = topics.RECEIPT.topic(user=user)
        alert = topics.BRIEF if self.is_small else topics.ALERT
        self._handlers: Mapping[str, Callable[[Message], None]] = {
            receipt: self._take_receipt,
            alert.topic(user=user): self._take_alert,
            topics.GROUP.topic(user=user): self._take_event,
            topics.QUESTION.topic(user=user): self._take_question,
        }
        super().__init__(ground, user, [*self._handlers], receipt)
        self.log.refused = self.refused
        self._sync: UUID | None = None
        self._behind_s = ground.rng.choice(_BEHIND_S)
        self._presence: tuple[UUID, PresenceSent] | None = None
        self._presences = itertools.count(1)
        self._said: dict[UUID, MessageSent] = {}
        self._seen: set[UUID | None] = set()
        self._heard: dict[UUID, set[int]] = defaultdict(set)  # of each group, which events
        self._asked: dict[UUID, set[int]] = defaultdict(set)  # which of those that lack

    def report(
        self, category: str, at: tuple[float, float], text: str, seen_ago_s: float = 0.0
    ) -> None:
        """Witness something, now or before."""
        ground = self.ground
        report = Report(
            id=ground.new_id(),
            category=category,
            location=Position(*at),
            seen_at=moment(ground.loop.now - seen_ago_s),
            text=text,
        )
        body = encode(report)
        if odd := ground.rng.random() < _ODD:
            report, body = _odd(report)
        self.log.rows.append(ReportCreated.of(report, t=self._now(), user=self.user, odd=odd))
        self._confirm(topics.REPORT, body, report.id, retain=self._slips())

    def blunder(self) -> None:
        """Send something garbled, on any topic that a participant may write."""
        self.garble(self.ground.rng.choice(_TOPICS).topic(user=self.user))

    def _slips(self) -> bool:
        return self.ground.rng.random() < _RETAINED

    def stand(self, at: tuple[float, float] | None) -> None:
        """Be somewhere, or (None) be told nothing from now on: that counts, however old it looks."""
        presence = Presence(
            at=moment(self.ground.loop.now - self._behind_s),
            location=Position(*at) if at else None,
            availability=Availability.AVAILABLE if at else Availability.MUTED,
            form=Form.SHORT if self.is_small else None,
        )
        if self._presence:
            self.journal.pop(self._presence[0], None)
        sent = PresenceSent(
            t=self._now(),
            user=self.user,
            number=next(self._presences),
            cell=cell_at(*at) if at else None,
            short=self.is_small,
        )
        self.log.rows.append(sent)
        key = self.ground.new_id()
        self._presence = (key, sent)
        self._confirm(topics.PRESENCE, presence, key, retain=self._slips())

    def _confirm(
        self,
        topic: Topic[Any],
        payload: Any,
        key: UUID,
        *,
        retain: bool = False,
        expiry_s: int | None = None,
    ) -> None:
        to = topic.topic(user=self.user)
        self.confirmed(to, payload, key, retain=retain, expiry_s=expiry_s)

    def on_online(self) -> None:
        """Ask for what was missed."""
        if self._sync:
            self.journal.pop(self._sync, None)
        self._sync = self.ground.new_id()
        self._confirm(topics.SYNC, Sync(since=moment(0.0)), self._sync, expiry_s=_SYNC_S)

    def on_message(self, message: Message) -> None:
        """Log it, and act on it the first time."""
        self._handlers[message.topic](message)

    def _take_receipt(self, message: Message) -> None:
        receipt: Receipt = _JSON[Receipt].decode(message.payload)
        if self.is_of_garbled(message, receipt):
            return
        if row := ReceiptSeen.of(receipt, t=self._now(), to=self.user):
            self.log.rows.append(row)
            self._confirm_said(row)
        if receipt.subject is Subject.REPORT and receipt.incident and self._first(receipt.id):
            self._add(receipt.incident)
        key = UUID(bytes=message.correlation) if message.correlation else None
        if key == self._sync:
            self._sync = None
        if self._presence and key == self._presence[0]:
            self.log.rows.append(replace(self._presence[1], done=self._now()))
            self._presence = None
        self.settle(receipt, key)

    def _confirm_said(self, receipt: ReceiptSeen) -> None:
        said = self._said.pop(receipt.id, None)
        if said is not None and receipt.outcome is Outcome.ACCEPTED:
            self.log.rows.append(replace(said, done=receipt.t))

    def _take_alert(self, message: Message) -> None:
        kind_of = Brief if self.is_small else Alert
        alert: Alert | Brief = _JSON[kind_of].decode(message.payload)
        if self.is_small:
            self.log.briefs.append(message.payload)
        self.log.rows.append(AlertSeen.of(alert, t=self._now(), user=self.user))
        rng, habits = self.ground.rng, self.habits
        if not self._first(alert.id) or rng.random() >= habits.answering:
            return
        kind = rng.choice(habits.answers)
        reply = Reply(id=self.ground.new_id(), incident=alert.incident, kind=kind)
        self._soon(topics.REPLY, reply, alert.incident)
        if kind is ReplyKind.ACCEPTED and rng.random() < 0.5:
            self._say(alert.incident, "ik kom")
        if kind is ReplyKind.ACCEPTED and rng.random() < habits.leaving:
            self.ground.loop.call_later(rng.uniform(*habits.stays_s), self._leave, alert)

    def _leave(self, alert: Alert | Brief) -> None:
        """Leave, and sometimes come back: report the same thing (no promise to come), or accept."""
        rng, loop = self.ground.rng, self.ground.loop
        identifier = self._reply(alert.incident, ReplyKind.LEFT)
        if isinstance(alert, Alert) and rng.random() < self.habits.reporting:
            place = alert.location.lat, alert.location.lon
            text = f"nog steeds {identifier.hex[-6:]}"
            loop.call_later(rng.uniform(*_AWAY_S), self.report, alert.category, place, text)
        elif rng.random() < self.habits.coming_back:
            loop.call_later(rng.uniform(*_AWAY_S), self._reply, alert.incident, ReplyKind.ACCEPTED)

    def _reply(self, incident: UUID, kind: ReplyKind) -> UUID:
        reply = Reply(id=self.ground.new_id(), incident=incident, kind=kind)
        self._send_now(topics.REPLY, reply, incident)
        return reply.id

    def _add(self, incident: UUID) -> None:
        """Say more about what was reported, sometimes."""
        if self.ground.rng.random() < _ADDING:
            self._say(incident, "nog iets")

    def _say(self, incident: UUID, words: str) -> None:
        """Say something that nobody else says."""
        identifier = self.ground.new_id()
        text = f"{words} {identifier.hex[-6:]}"
        message = GroupMessage(id=identifier, incident=incident, text=text)
        self._soon(topics.MESSAGE, message, incident)

    def _soon(self, topic: Topic[Any], payload: Reply | GroupMessage | Answer, about: UUID) -> None:
        wait_s = self.ground.rng.uniform(0.05, 1.0)
        self.ground.loop.call_later(wait_s, self._send_now, topic, payload, about)

    def _send_now(
        self, topic: Topic[Any], payload: Reply | GroupMessage | Answer, about: UUID
    ) -> None:
        assert topic.subject is not None
        said = MessageSent(
            t=self._now(),
            user=self.user,
            subject=topic.subject,
            incident=about,
            reply=payload.kind if isinstance(payload, Reply) else None,
            text=payload.text if isinstance(payload, GroupMessage) else "",
        )
        self._said[payload.id] = said
        self.log.rows.append(said)
        self._confirm(topic, payload, payload.id)

    def _now(self) -> float:
        return EPOCH_S + self.ground.loop.now

    def _take_event(self, message: Message) -> None:
        event: GroupEvent = _JSON[GroupEvent].decode(message.payload)
        self.log.rows.append(GroupEventSeen.of(event, t=self._now(), user=self.user))
        heard = self._heard[event.incident]
        heard.add(event.sequence)
        if lacking := {*range(min(heard), max(heard))} - heard - self._asked[event.incident]:
            self._asked[event.incident] |= lacking
            self.ground.loop.call_later(_GAP_S, self._close_gap, event.incident, lacking)
        is_farewell = event.kind is GroupEventKind.LEFT and event.member != event.you
        if is_farewell and self._first(event.id) and self.ground.rng.random() < _ASKING:
            self._say(event.incident, "komt er nog iemand?")

    def _close_gap(self, incident: UUID, lacking: set[int]) -> None:
        """Ask for what was missed, if it still lacks: once, for what was while away never comes."""
        if lacking - self._heard[incident]:
            self.sync()

    def sync(self) -> None:
        """Ask for what was missed, as devices do every few minutes."""
        if self.is_online:
            self.on_online()

    def _take_question(self, message: Message) -> None:
        question: Question = _JSON[Question].decode(message.payload)
        self.say_has(topics.DELIVERED.topic(user=self.user), question.id)
        self.log.rows.append(QuestionSeen.of(question, t=self._now(), user=self.user))
        if self._first(question.id):
            answer = Answer(id=self.ground.new_id(), question=question.id, text="ja")
            self._soon(topics.ANSWER, answer, question.incident)

    def _first(self, identifier: UUID | None) -> bool:
        new = identifier not in self._seen
        self._seen.add(identifier)
        return new


def _odd(report: Report) -> tuple[Report, bytes]:
    """Return what a report means whose writer slipped, and how it is written."""
    meant = replace(report, audience=Audience.POLICE)
    written = json.loads(encode(report))
    del written["audience"]
    written |= {"audiance": Audience.POLICE, "seen_by": "me"}
    written["location"]["accuracy_m"] = -1
    return meant, json.dumps(written).encode()
