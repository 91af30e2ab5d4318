"""What every device and desk has: a client, a journal, and messages sent until their receipt."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from broker.mqtt import (
    Connection,
    ConnectionHooks,
    ConnectionOptions,
    Endpoint,
    Message,
    MqttError,
    SessionTakenOver,
)
from schemas.codec import encode
from schemas.messages import DeliveryReceipt, Outcome, Receipt
from verify.simulation.process import Process
from verify.simulation.simulated_broker import SimulatedBroker
from verify.simulation.virtual_time import EPOCH_S, VirtualLoop

_RETRY_S, _PATIENT_S = (0.8, 2.5), (20.0, 40.0)
_LONG_S = (
    60.0  # from then on it is tried seldom: all faults are over, and a judge only waits for the end
)
_GARBLED = b"{"  # what no service can read: it is refused on every topic


@dataclass(frozen=True, slots=True)
class Ground:
    """What everybody stands on."""

    loop: VirtualLoop
    rng: random.Random
    delay: Callable[[], float]
    brokers: Sequence[SimulatedBroker]
    trace: Callable[[str, str], None]
    trouble: Callable[[str], None]

    def new_id(self) -> UUID:
        """Return a UUIDv7 of this moment and these dice (RFC 9562, 5.7)."""
        ms = int((EPOCH_S + self.loop.now) * 1000)
        bits = (ms << 80) | (7 << 76) | (2 << 62)
        return UUID(int=bits | self.rng.getrandbits(12) << 64 | self.rng.getrandbits(62))


class Sender:
    """A client with a journal: what has no receipt yet is sent again."""

    session_expiry_s = 86_400

    def __init__(self, ground: Ground, name: str, filters: list[str], response_topic: str) -> None:
        self.ground = ground
        self.journal: dict[UUID, Message] = {}
        self.refused: dict[UUID, set[Outcome]] = {}  # what is garbled, and how it was answered
        self.name = name
        self._filters = filters
        self._response_topic = response_topic

    def start(self) -> None:
        """Connect."""
        ground = self.ground
        self.process = Process(ground.loop, ground.rng, ground.delay, ground.brokers)
        # As a load balancer has it: the same until the next start.
        broker_index = ground.rng.randrange(len(ground.brokers))
        self._client = Connection(
            Endpoint(host=str(broker_index), username=self.name),
            client_id=self.name,
            subscriptions=self._filters,
            options=ConnectionOptions(
                session_expiry_s=self.session_expiry_s, keep_alive_s=0, must_connect=False
            ),
            hooks=ConnectionHooks(on_connect=self.on_online),
            externals=self.process.externals(),
        )
        self._listening = ground.loop.create_task(self._listen(self._client), name=self.name)

    async def _listen(self, client: Connection) -> None:
        try:
            async with client:
                async for delivery in client:
                    self._take(delivery.message)
                    delivery.acknowledge()
        except SessionTakenOver:  # by what its past had sent
            self.restart()
        except MqttError as error:
            self.ground.trouble(f"{self.name}: {error}")

    def stop(self) -> None:
        """Die without a word."""
        self.process.die()
        self._listening.cancel()

    def restart(self) -> None:
        """Lose the memory; the journal stays, and is sent again."""
        self.stop()
        self.start()
        for key in self.journal:
            self._later(key)

    @property
    def is_online(self) -> bool:
        """Whether it is connected and subscribed."""
        return self._client.connected

    def on_online(self) -> None:
        """The connection stands (again)."""

    def on_message(self, message: Message) -> None:
        """A message has come."""

    def _take(self, message: Message) -> None:
        self.ground.trace(self.name, f"< {message.topic} {message.payload.decode()}")
        self.on_message(message)

    def confirmed(
        self,
        topic: str,
        payload: Any,
        key: UUID,
        *,
        retain: bool = False,
        expiry_s: int | None = None,
    ) -> None:
        """Send `payload` until its receipt is here."""
        self.journal[key] = Message(
            topic,
            payload if isinstance(payload, bytes) else encode(payload),
            retain=retain,
            correlation=key.bytes,
            response_topic=self._response_topic or None,
            expiry_s=expiry_s,
        )
        self._send(key)

    def garble(self, topic: str) -> None:
        """Send what must be refused, until it is."""
        key = self.ground.new_id()
        self.refused[key] = set()
        self.confirmed(topic, _GARBLED, key)

    def is_of_garbled(self, message: Message, receipt: Receipt) -> bool:
        """Whether a receipt is the answer to what was garbled; it is settled by that."""
        key = UUID(bytes=message.correlation) if message.correlation else None
        if key not in self.refused:
            return False
        self.refused[key].add(receipt.outcome)
        self.journal.pop(key, None)
        return True

    def say_has(self, topic: str, identifier: UUID) -> None:
        """Say once that a message has come: if that is lost, the message comes again."""
        self._publish(Message(topic, encode(DeliveryReceipt(ids=frozenset((identifier,))))))

    def _publish(self, message: Message) -> None:
        self._client.publish_nowait(message).add_done_callback(asyncio.Future.exception)

    def _send(self, key: UUID) -> None:
        message = self.journal.get(key)
        if message is None:
            return
        if self.is_online:
            self.ground.trace(self.name, f"> {message.topic} {message.payload.decode()}")
            self._publish(message)
        self._later(key)

    def _later(self, key: UUID) -> None:
        ground = self.ground
        between = _RETRY_S if ground.loop.now < _LONG_S else _PATIENT_S
        ground.loop.call_later(ground.rng.uniform(*between), self._send, key)

    def settle(self, receipt: Receipt, key: UUID | None) -> None:
        """Remove what `receipt` confirms from the journal."""
        if receipt.id is not None:
            self.journal.pop(receipt.id, None)
        if key is not None:
            self.journal.pop(key, None)
