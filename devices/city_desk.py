"""A city's desk: reads the cases of its municipalities, which are not urgent.

async with CityDesk("city-desk", password, broker, municipalities=["gent"], on_case=show):
    ...
"""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from uuid import UUID

from devices.await_receipt import Receipts
from devices.connected_device import ConnectedDevice
from devices.delivery_receipts import DeliveryReceipts
from devices.desk_sync import DeskSynchronizer, Scope
from devices.device_connection import (
    SESSION_EXPIRY_S,
    Broker,
    DeviceConnection,
    Identity,
    Incoming,
    client_id,
)
from devices.reading import read
from schemas import topics
from schemas.messages import Case

OnCase = Callable[[Case, float], None]

_NAMED = 200


class CityDesk(ConnectedDevice):
    """One desk, for the municipalities that its account allows.

    `cases` holds each once, by id; `repeats` counts what came again. `on_case` is a plain, quick
    function of a new case and the time at which it came (Unix seconds). When it has returned, the
    case is confirmed and not sent again.
    """

    def __init__(
        self,
        username: str,
        password: str | None,
        broker: Broker,
        *,
        municipalities: Sequence[str],
        on_case: OnCase | None = None,
        device: str = "desk",
        session_expiry_s: int = SESSION_EXPIRY_S,
    ) -> None:
        self.cases: dict[UUID, Case] = {}
        self.repeats: Counter[UUID] = Counter()
        self._on_case = on_case
        identity = Identity(
            username, password, client_id(username, device, password), session_expiry_s
        )
        filters = [
            topic.filter(municipality=one)
            for one in municipalities
            for topic in (topics.CASE, topics.CITY_RECEIPT)
        ]
        self._connection = DeviceConnection(
            broker, identity, filters=filters, on_message=self._take
        )
        self._receipts = Receipts(self._connection, timeout_s=10.0)
        self._delivery_receipts = DeliveryReceipts(self._connection)
        scopes = [
            Scope(
                topics.CITY_SYNC.topic(municipality=one),
                topics.CITY_RECEIPT.topic(municipality=one),
            )
            for one in municipalities
        ]
        synchronizer = DeskSynchronizer(self._connection, self._receipts, scopes, has=self._newest)
        self._parts = (self._connection, self._delivery_receipts, synchronizer)

    def _newest(self) -> list[UUID]:
        return list(itertools.islice(reversed(self.cases), _NAMED))

    def _take(self, incoming: Incoming) -> None:
        levels = topics.CASE.parse(incoming.topic)
        if levels is None:
            self._receipts.take(read(topics.CITY_RECEIPT, incoming.payload), incoming)
            return
        case = read(topics.CASE, incoming.payload)
        if case.id in self.cases:
            self.repeats[case.id] += 1
        else:
            if self._on_case:
                self._on_case(case, incoming.received_at)
            self.cases[case.id] = case
        topic = topics.CITY_DELIVERED.topic(municipality=levels["municipality"])
        self._delivery_receipts.add(topic, case.id)
