"""The desks of all zones, and the operators: they read, confirm, command and log."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from broker.mqtt import Message
from schemas import topics
from schemas.messages import (
    Acknowledge,
    Ask,
    Assign,
    Case,
    Close,
    DeskSync,
    Escalation,
    EscalationKind,
    IncidentState,
    Inform,
    PoliceCommand,
    Receipt,
    Rejection,
    Reporters,
)
from schemas.topics import Topic
from verify.oracle.observations import (
    CaseSeen,
    CommandSent,
    EscalationSeen,
    ReceiptSeen,
    StateSeen,
)
from verify.simulation.sender import Ground, Sender
from verify.simulation.simulation_logs import Alarm, DeskLog, OperatorLog, Synced
from verify.simulation.virtual_time import EPOCH_S
from verify.world.exercised import sent_topics

_SYNC_S = 6  # so long a sync is worth answering
_NAMED = 200  # ids in a sync
_JSON: dict[type[Any], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (Case, Escalation, IncidentState, Receipt, Rejection)
}
_TOPICS = tuple(one for one in sent_topics() if "{user}" not in one.template)


class Desk(Sender):
    """The desks of the police and the city in all zones; one that `syncs` asks for what it lacks."""

    session_expiry_s = 10

    def __init__(
        self, ground: Ground, zones: list[str], name: str = "desk", *, syncs: bool = True
    ) -> None:
        self.log = DeskLog()
        self._handlers: Mapping[Topic[Any], Callable[[Message, str], None]] = {
            topics.ESCALATION: self._take_escalation,
            topics.INCIDENT: self._take_state,
            topics.COMMAND_RECEIPT: self._take_receipt,
            topics.CASE: self._take_case,
            topics.CITY_RECEIPT: self._take_receipt,
        }
        filters = [
            topic.filter(**{topic.levels[0]: zone}) for topic in self._handlers for zone in zones
        ]
        super().__init__(ground, name, filters, "")
        self.log.refused = self.refused
        self.orders: Sequence[type[PoliceCommand]] = (Acknowledge, Assign, Inform, Ask, Close)
        self._zones = zones
        self._syncs = syncs
        self._has: dict[UUID, None] = {}
        self._acted: set[UUID] = set()
        self._versions: dict[UUID, int] = {}

    def sleep(self) -> None:
        """Be gone for so long that the MQTT broker forgets the session."""
        self.stop()

    def on_online(self) -> None:
        """Ask for what was missed, each desk of a zone for itself."""
        for key in [key for key, sync in self.log.syncs.items() if sync.answered_at is None]:
            del self.log.syncs[key]
            self.journal.pop(key, None)
        has = DeskSync(has=frozenset([*self._has][-_NAMED:]))
        for zone in self._zones if self._syncs else ():
            for kind, topic in (
                ("police", topics.DESK_SYNC.topic(zone=zone)),
                ("city", topics.CITY_SYNC.topic(municipality=zone)),
            ):
                key = self.ground.new_id()
                self.log.syncs[key] = Synced(kind, zone, self._now())
                self.confirmed(topic, has, key, expiry_s=_SYNC_S)

    def blunder(self) -> None:
        """Send something garbled, on any topic that a desk may write."""
        topic, zone = self.ground.rng.choice(_TOPICS), self._zones[0]
        self.garble(topic.topic(**{topic.levels[0]: zone}))

    def on_message(self, message: Message) -> None:
        """Log it, and act on what is new."""
        for topic, handler in self._handlers.items():
            if levels := topic.parse(message.topic):
                handler(message, levels[topic.levels[0]])

    def _take_receipt(self, message: Message, zone: str) -> None:
        receipt: Receipt = _JSON[Receipt].decode(message.payload)
        if self.is_of_garbled(message, receipt):
            return
        key = UUID(bytes=message.correlation) if message.correlation else None
        if key in self.log.syncs and self.log.syncs[key].answered_at is None:
            self.log.syncs[key].answered_at = self._now()
        if row := ReceiptSeen.of(receipt, t=self._now(), to=zone):
            self.log.rows.append(row)
        self.settle(receipt, key)

    def _take_state(self, message: Message, zone: str) -> None:
        """Take over a state, as readers do: unless a later version is known."""
        if not message.payload:
            return
        state: IncidentState = _JSON[IncidentState].decode(message.payload)
        if state.version >= self._versions.get(state.incident, 0):
            self._versions[state.incident] = state.version
            row = StateSeen.of(state, t=self._now(), zone=zone, late=not self._syncs)
            self.log.rows.append(row)

    def _take_case(self, message: Message, municipality: str) -> None:
        case: Case = _JSON[Case].decode(message.payload)
        self.log.rows.append(CaseSeen.of(case, t=self._now(), municipality=municipality))
        self._has[case.id] = None
        self.say_has(topics.CITY_DELIVERED.topic(municipality=municipality), case.id)

    def _take_escalation(self, message: Message, zone: str) -> None:
        escalation: Escalation = _JSON[Escalation].decode(message.payload)
        self.log.rows.append(EscalationSeen.of(escalation, t=self._now(), zone=zone))
        self._has[escalation.id] = None
        self.say_has(topics.DESK_DELIVERED.topic(zone=zone), escalation.id)
        if escalation.kind is EscalationKind.NEW and escalation.incident not in self._acted:
            self._acted.add(escalation.incident)
            self._act(escalation)

    def _act(self, escalation: Escalation) -> None:
        rng = self.ground.rng
        for number, kind in enumerate(self.orders):
            if rng.random() < 0.4:
                wait_s = number * 0.5 + rng.uniform(0.1, 1.5)
                self.ground.loop.call_later(wait_s, self._command, kind, escalation)

    def _command(self, kind: type[Any], escalation: Escalation) -> None:
        identifier = self.ground.new_id()
        words: dict[type[Any], dict[str, str]] = {
            Assign: {"unit": f"unit-{identifier.hex[-6:]}"},
            Inform: {"text": f"we komen {identifier.hex[-6:]}"},
            Ask: {"text": f"wat ziet u? {identifier.hex[-6:]}", "reporters": Reporters.ALL},
            Close: {"outcome": f"opgelost {identifier.hex[-6:]}"},
        }
        order = kind(id=identifier, incident=escalation.incident, by="desk", **words.get(kind, {}))
        self.log.rows.append(CommandSent.of(order, t=self._now(), zone=escalation.zone))
        self.confirmed(topics.COMMAND.topic(zone=escalation.zone), order, identifier)

    def _now(self) -> float:
        return EPOCH_S + self.ground.loop.now


class Operator(Sender):
    """Reads the dead letters, the alarms for desks that nobody attends to, and workers' states."""

    def __init__(self, ground: Ground) -> None:
        self.log = OperatorLog()
        read = (topics.REJECTED, topics.UNATTENDED, topics.SERVICE)
        filters = [topic.filter() for topic in read]
        super().__init__(ground, "operator", filters, "")

    def on_message(self, message: Message) -> None:
        """Log it."""
        now = EPOCH_S + self.ground.loop.now
        if levels := topics.UNATTENDED.parse(message.topic):
            alarm = Alarm(levels["desk"], levels["zone"], stands=bool(message.payload))
            self.log.alarms.append((now, alarm))
        elif topics.REJECTED.parse(message.topic):
            self.log.dead_letters.append((now, _JSON[Rejection].decode(message.payload)))
