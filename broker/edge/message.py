"""An application message on its way through the MQTT broker, and the packets that carry it."""

from collections.abc import Callable
from typing import Self

import msgspec

from broker.edge.packets import V5, Publish, variable_byte_integer
from broker.edge.records import Holding, Key


class Message(msgspec.Struct, eq=False):
    """An application message. `number` orders messages; `expires_at` and `came_at` are monotonic.

    `size` is what counts in quotas, `holders` the queues in the journal that have it. What its
    packets have in common (`forms`) is written once: they differ in flags and packet id alone.
    """

    number: int
    publish: Publish
    came_at: float
    size: int
    expires_at: float | None
    holders: dict[Key, Holding] = {}
    forms: dict[object, tuple[bytes, bytes]] = {}

    @classmethod
    def of(cls, number: int, publish: Publish, came_at: float) -> Self:
        """Return the message that a PUBLISH is."""
        expires_at = None if publish.expiry_s is None else came_at + publish.expiry_s
        size = len(publish.topic) + len(publish.payload) + len(publish.properties) + 64
        return cls(number, publish, came_at, size, expires_at)

    def form(
        self, version: int, qos: int, identifiers: tuple[int, ...], clock: Callable[[], float]
    ) -> tuple[bytes, bytes]:
        """Return what stands before the packet id, without the first byte, and what stands after."""
        waited_s = int(clock() - self.came_at) if self.expires_at is not None else 0
        key = (version, qos > 0, identifiers, waited_s)
        found = self.forms.get(key)
        if found is None:
            publish, after = self.publish, b""
            if version == V5:
                after = _properties(publish, identifiers, waited_s)
            name = publish.topic.encode()
            length = 2 + len(name) + (2 if qos else 0) + len(after) + len(publish.payload)
            before = variable_byte_integer(length) + len(name).to_bytes(2, "big") + name
            found = self.forms[key] = (before, after + publish.payload)
        return found


def _properties(publish: Publish, identifiers: tuple[int, ...], waited_s: int) -> bytes:
    found = publish.properties
    if publish.expiry_s is not None:  # 3.3.2-6
        found += b"\2" + max(0, publish.expiry_s - waited_s).to_bytes(4)
    for identifier in identifiers:
        found += b"\x0b" + variable_byte_integer(identifier)
    return variable_byte_integer(len(found)) + found
