"""A desk of a replay: hears every escalation or case with its topic, and acknowledges.

Slimmer than `devices/police_desk.py`: it keeps nothing, subscribes to no states, and knows the
topic each message came on, which is what the oracle judges.
"""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from devices.await_receipt import Receipts, Request
from devices.connected_device import ConnectedDevice
from devices.delivery_receipts import DeliveryReceipts
from devices.device_connection import Broker, DeviceConnection, Identity, Incoming, client_id
from devices.reading import read
from schemas import topics
from schemas.codec import encode
from schemas.ids import new_id
from schemas.messages import Acknowledge, Receipt
from verify.oracle.observations import CaseSeen, EscalationSeen

SESSION_EXPIRY_S = 300
RECEIPT_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Login:
    """As whom a desk connects."""

    username: str
    password: str

    def identity(self, device: str) -> Identity:
        """Return as whom one of its connections is known to the MQTT broker."""
        known_as = client_id(self.username, device, self.password)
        return Identity(self.username, self.password, known_as, SESSION_EXPIRY_S)


class EscalationWatch(ConnectedDevice):
    """Hears the escalations of one police zone (`+`: of all) while the `async with` lasts."""

    def __init__(
        self,
        login: Login,
        broker: Broker,
        *,
        zone: str,
        device: str,
        on_escalation: Callable[[EscalationSeen], None],
    ) -> None:
        self._on_escalation = on_escalation
        self._connection = DeviceConnection(
            broker,
            login.identity(device),
            filters=[topics.ESCALATION.filter(zone=zone), topics.COMMAND_RECEIPT.filter(zone=zone)],
            on_message=self._take,
        )
        self._receipts = Receipts(self._connection, timeout_s=RECEIPT_TIMEOUT_S)
        self._delivery = DeliveryReceipts(self._connection)
        self._parts = (self._connection, self._delivery)

    async def acknowledge(self, incident: UUID, zone: str) -> Receipt:
        """Take the incident.

        Raises:
            NotConfirmed, Rejected: as all that ask for a receipt.
        """
        command = Acknowledge(id=new_id(), incident=incident, by="replay")
        return await self._receipts.confirmed(
            Request(
                topics.COMMAND.topic(zone=zone),
                encode(command),
                topics.COMMAND_RECEIPT.topic(zone=zone),
                command.id,
            )
        )

    def _take(self, incoming: Incoming) -> None:
        levels = topics.ESCALATION.parse(incoming.topic)
        if levels is None:
            self._receipts.take(read(topics.COMMAND_RECEIPT, incoming.payload), incoming)
            return
        escalation = read(topics.ESCALATION, incoming.payload)
        self._on_escalation(EscalationSeen.of(escalation, t=incoming.received_at, **levels))
        self._delivery.add(topics.DESK_DELIVERED.topic(zone=levels["zone"]), escalation.id)


class CaseWatch(ConnectedDevice):
    """Hears the cases of every municipality while the `async with` lasts."""

    def __init__(
        self, login: Login, broker: Broker, *, device: str, on_case: Callable[[CaseSeen], None]
    ) -> None:
        self._on_case = on_case
        self._connection = DeviceConnection(
            broker,
            login.identity(f"{device}-city"),
            filters=[topics.CASE.filter()],
            on_message=self._take,
        )
        self._delivery = DeliveryReceipts(self._connection)
        self._parts = (self._connection, self._delivery)

    def _take(self, incoming: Incoming) -> None:
        case = read(topics.CASE, incoming.payload)
        levels = topics.CASE.parse(incoming.topic) or {}
        topic = topics.CITY_DELIVERED.topic(municipality=levels["municipality"])
        self._delivery.add(topic, case.id)
        if case.message is not None:
            return  # what a reporter has said since, no case of its own
        self._on_case(CaseSeen.of(case, t=incoming.received_at, **levels))
