"""A desk of police operations: reads the escalations of its zones and sends commands.

async with PoliceDesk("desk-gent", password, broker, zones=["gent"]) as desk:
    escalation = await desk.next_escalation()
    await desk.acknowledge(escalation.incident)
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from devices.await_receipt import MessageRejected, NotConfirmed, Receipts, Request
from devices.connected_device import ConnectedDevice
from devices.delivery_receipts import DeliveryReceipts
from devices.desk_sync import DeskSynchronizer, Scope
from devices.device_connection import (
    Broker,
    DeviceConnection,
    Incoming,
)
from devices.device_options import DEFAULTS, DeviceOptions
from devices.reading import read
from schemas import topics
from schemas.codec import encode_within_limit
from schemas.ids import new_id
from schemas.messages import (
    Acknowledge,
    Ask,
    Assign,
    Close,
    Escalation,
    IncidentState,
    Inform,
    PoliceCommand,
    Receipt,
    Reporters,
    SetStatus,
    Status,
)
from schemas.topics import Topic

__all__ = ["DeskListeners", "DeviceOptions", "MessageRejected", "NotConfirmed", "PoliceDesk"]

OnEscalation = Callable[[Escalation, float], None]
OnState = Callable[[IncidentState, float], None]
OnReceipt = Callable[[Receipt, float], None]

_NAMED = 200  # escalations in a sync


@dataclass(frozen=True, kw_only=True, slots=True)
class DeskListeners:
    """What a desk calls; see `PoliceDesk`."""

    on_escalation: OnEscalation | None = None
    on_state: OnState | None = None
    on_receipt: OnReceipt | None = None


NO_LISTENERS = DeskListeners()


class PoliceDesk(ConnectedDevice):
    """One desk, for one zone or several as its account allows.

    `escalations` holds each once, by id; `received_at` has the Unix time, in seconds, at which it came;
    `repeats` counts what came again. `states` holds the newest version of each incident, as long as
    it is retained. Callbacks are plain, quick functions of the message and the time at which it
    came. When `on_escalation` has returned, the escalation is confirmed and not sent again. `by` is
    the name in the desk's commands.
    """

    def __init__(
        self,
        username: str,
        password: str | None,
        broker: Broker,
        *,
        zones: Sequence[str],
        by: str | None = None,
        listeners: DeskListeners = NO_LISTENERS,
        options: DeviceOptions = DEFAULTS,
    ) -> None:
        self.escalations: dict[UUID, Escalation] = {}
        self.received_at: dict[UUID, float] = {}
        self.states: dict[UUID, IncidentState] = {}
        self.repeats: Counter[UUID] = Counter()
        self._zone_of: dict[UUID, str] = {}
        self._by = by or username
        self._listeners = listeners
        self._waiting: asyncio.Queue[Escalation] = asyncio.Queue()
        self._handlers: Sequence[tuple[Topic[Any], Callable[[Incoming], None]]] = (
            (topics.ESCALATION, self._take_escalation),
            (topics.INCIDENT, self._take_state),
            (topics.COMMAND_RECEIPT, self._take_receipt),
        )
        self._connection = DeviceConnection(
            broker,
            options.identity(username, password, usual="desk"),
            filters=[topic.filter(zone=zone) for zone in zones for topic, _ in self._handlers],
            on_message=self._take,
            connect_timeout_s=options.connect_timeout_s,
        )
        self._receipts = Receipts(self._connection, timeout_s=options.receipt_timeout_s)
        self._delivery_receipts = DeliveryReceipts(self._connection)
        scopes = [
            Scope(topics.DESK_SYNC.topic(zone=zone), topics.COMMAND_RECEIPT.topic(zone=zone))
            for zone in zones
        ]
        synchronizer = DeskSynchronizer(self._connection, self._receipts, scopes, has=self._newest)
        self._parts = (self._connection, self._delivery_receipts, synchronizer)

    async def next_escalation(self) -> Escalation:
        """Return the next escalation that no call has returned yet, in order of arrival."""
        return await self._waiting.get()

    async def acknowledge(self, incident: UUID, *, zone: str | None = None) -> Receipt:
        """Say that operations have seen the incident and take it.

        Commands go to the zone that the incident's escalation came from, else to `zone`.

        Raises:
            ValueError: the desk has never seen the incident, and no zone is given.
            NotConfirmed, MessageRejected: as every method that returns a receipt.
        """
        return await self.command(Acknowledge(**self._signed(incident)), zone=zone)

    async def assign(self, incident: UUID, unit: str, *, zone: str | None = None) -> Receipt:
        """Say that `unit` is on its way."""
        return await self.command(Assign(**self._signed(incident), unit=unit), zone=zone)

    async def set_status(
        self, incident: UUID, status: Status, *, zone: str | None = None
    ) -> Receipt:
        """Set the incident's status as operations see it."""
        return await self.command(SetStatus(**self._signed(incident), status=status), zone=zone)

    async def ask(
        self,
        incident: UUID,
        text: str,
        report: UUID | None = None,
        *,
        reporters: Reporters = Reporters.ONE,
        zone: str | None = None,
    ) -> Receipt:
        """Ask the reporter of `report`, or all of them; of an incident with one report, that one."""
        order = Ask(**self._signed(incident), text=text, report=report, reporters=reporters)
        return await self.command(order, zone=zone)

    async def inform(
        self, incident: UUID, text: str, report: UUID | None = None, *, zone: str | None = None
    ) -> Receipt:
        """Tell the group something; for the police alone, each reporter or the one of `report`."""
        order = Inform(**self._signed(incident), text=text, report=report)
        return await self.command(order, zone=zone)

    async def close(self, incident: UUID, outcome: str, *, zone: str | None = None) -> Receipt:
        """End the incident; `outcome` goes to everyone who was alerted."""
        return await self.command(Close(**self._signed(incident), outcome=outcome), zone=zone)

    async def command(self, command: PoliceCommand, *, zone: str | None = None) -> Receipt:
        """Send `command` until it is confirmed."""
        zone = zone or self._zone_of.get(command.incident)
        if zone is None:
            raise ValueError(f"incident {command.incident} was never seen here: name its zone")
        return await self._receipts.confirmed(
            Request(
                topics.COMMAND.topic(zone=zone),
                encode_within_limit(command),
                topics.COMMAND_RECEIPT.topic(zone=zone),
                command.id,
            )
        )

    def _signed(self, incident: UUID) -> dict[str, Any]:
        return {"id": new_id(), "incident": incident, "by": self._by}

    def _take(self, incoming: Incoming) -> None:
        for topic, take in self._handlers:
            if topic.parse(incoming.topic) is not None:
                take(incoming)
                return

    def _newest(self) -> list[UUID]:
        return list(itertools.islice(reversed(self.escalations), _NAMED))

    def _take_escalation(self, incoming: Incoming) -> None:
        escalation = read(topics.ESCALATION, incoming.payload)
        zone = (topics.ESCALATION.parse(incoming.topic) or {})["zone"]
        self._keep(escalation, incoming, zone)
        self._delivery_receipts.add(topics.DESK_DELIVERED.topic(zone=zone), escalation.id)

    def _keep(self, escalation: Escalation, incoming: Incoming, zone: str) -> None:
        """Keep a new escalation; if `on_escalation` raises, it is neither kept nor confirmed."""
        if escalation.id in self.escalations:
            self.repeats[escalation.id] += 1
            return
        if self._listeners.on_escalation:
            self._listeners.on_escalation(escalation, incoming.received_at)
        self.escalations[escalation.id] = escalation
        self.received_at[escalation.id] = incoming.received_at
        # Commands go where this desk may write: an escalation of another zone that climbed to this
        # desk came on the topic of the desk's own zone.
        if zone == escalation.zone or escalation.incident not in self._zone_of:
            self._zone_of[escalation.incident] = zone
        self._waiting.put_nowait(escalation)

    def _take_state(self, incoming: Incoming) -> None:
        if not incoming.payload:  # cleared: the incident's retention has ended
            levels = topics.INCIDENT.parse(incoming.topic) or {}
            self.states.pop(UUID(levels["incident"]), None)
            return
        state = read(topics.INCIDENT, incoming.payload)
        known = self.states.get(state.incident)
        if known and state.version <= known.version:
            return
        self.states[state.incident] = state
        self._zone_of[state.incident] = state.zone
        if self._listeners.on_state:
            self._listeners.on_state(state, incoming.received_at)

    def _take_receipt(self, incoming: Incoming) -> None:
        receipt = read(topics.COMMAND_RECEIPT, incoming.payload)
        if not self._receipts.take(receipt, incoming) and self._listeners.on_receipt:
            self._listeners.on_receipt(receipt, incoming.received_at)
