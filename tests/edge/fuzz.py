"""Sends an MQTT broker random, damaged and lawful packets, and sees that it stays in its bounds.

    python -m tests.edge.fuzz --packets 1000000 --seed 7

After every packet: no exception but a lawful close; what the broker sends is lawful; what it keeps is
within the quotas; and clients of another account are served as if nothing was.
"""

# ruff: noqa: T201 - a command

import argparse
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

import mqtt5

from broker.edge.accounts import Grant, Quotas
from broker.edge.limits import Limits
from tests.edge import octets
from tests.edge.octets import V5, V311
from tests.edge.wire import Wire, WireClient

_CLIENTS = 5
_MOST_SECONDS = 1.0  # of this process, for one packet
_LIMITS = Limits(max_packet_bytes=20_000, receive_maximum=20, unwritten_bytes=50_000)
_QUOTAS = Quotas(
    connections=6,
    subscriptions=30,
    retained=10,
    queued_bytes=100_000,
    publishes_per_s=1e9,
)
_STRANGER = Grant(
    name="stranger", reads=("f/#", "+/r"), writes=("f/#",), is_service=True, quotas=_QUOTAS
)
_FRIEND = Grant(name="friend", reads=("good/#",), writes=("good/#",))
_CROWD = b"\x92\x92\xa3f/a\xa3f/b\xc4\1x"  # MessagePack: two topics and a payload
_OPTIONS = (0, 1, 2, 2, 2, 2, 9, 10, 17, 18, 33, 34, 4, 3, 64)  # the last three: seldom lawful
_LEVELS = ("f", "a", "b", "r", "+", "#", "", "$share", "g", "$SYS", "é", "\ufeff")


class Fuzz:
    """One MQTT broker, strangers that send it anything, and two friends who talk over it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.closes: Counter[str] = Counter()
        self.slowest_s = 0.0
        grants = {"stranger": _STRANGER, "friend": _FRIEND}
        self.wire = Wire(limits=_LIMITS, grants=grants, is_durable=self.random.random() < 0.5)
        self._strangers: list[Stranger] = []
        self._friends = [self._friend("ann"), self._friend("bob")]
        self._friends[1].subscribe("good/#", qos=2)

    def _friend(self, name: str) -> WireClient:
        friend = self.wire.client(name, username="friend", session_expiry_interval=60)
        friend.read()
        return friend

    def run(self, packets: int) -> None:
        """Send so many packets."""
        for number in range(packets):
            self._one()
            if number % 100 == 0:
                self._check_bounds()
                self.wire.wait(self.random.choice((0, 0, 0, 1, 30)))
                self._talk(number)

    def _one(self) -> None:
        strangers = self._strangers
        if len(strangers) < _CLIENTS:
            strangers.append(Stranger(self.wire, self.random))
        stranger = self.random.choice(strangers)
        began = time.process_time()
        is_alive = stranger.send()
        self.slowest_s = max(self.slowest_s, time.process_time() - began)
        assert self.slowest_s < _MOST_SECONDS, f"a packet took {self.slowest_s} s"
        if not is_alive:
            self.closes[stranger.end()] += 1
            strangers.remove(stranger)
            self.wire.clients.remove(stranger.client)

    def _talk(self, number: int) -> None:
        """The friends are served."""
        ann, bob = self._friends
        qos = number // 100 % 3
        ann.publish("good/news", str(number).encode(), qos=qos)
        (message,) = bob.messages()
        assert message.payload == str(number).encode()
        if qos == 2:
            bob.send(mqtt5.PubRecPacket(message.packet_id).write())
            bob.send(mqtt5.PubCompPacket(message.packet_id).write())
            ann.send(mqtt5.PubRelPacket(1).write())
        elif qos == 1:
            bob.puback(message.packet_id)
        bob.got.clear()
        bob.read()
        assert len(ann.read()) == (0, 1, 2)[qos]

    def _check_bounds(self) -> None:
        broker = self.wire.broker
        account = broker.accounts.get("stranger")
        if account is not None:
            assert 0 <= account.connections <= _QUOTAS.connections
            assert 0 <= account.sessions <= _QUOTAS.connections
            assert 0 <= account.subscriptions <= _QUOTAS.subscriptions
            assert 0 <= account.retained <= _QUOTAS.retained
            assert 0 <= account.queued_bytes <= _QUOTAS.queued_bytes + _LIMITS.max_packet_bytes
        assert len(broker.sessions) <= _QUOTAS.connections + 2
        assert len(broker.connections) <= _CLIENTS + 2
        assert all(len(one.received) <= 65535 for one in broker.sessions.values())
        if self.wire.journal is not None:
            self.wire.journal.clear()


class Stranger:
    """One connection, and what goes over it."""

    def __init__(self, wire: Wire, dice: random.Random) -> None:
        self.client = wire.raw()
        self._random = dice
        self._version = dice.choice((V311, V5))
        self._left = dice.choice((1, 3, 10, 50, 200))
        self._is_first = True
        self._has_connack = False
        self._is_over = False  # DISCONNECT has come
        self._reason = ""

    def send(self) -> bool:
        """Send one packet in pieces; whether the connection goes on."""
        self._left -= 1
        is_lawful = self._is_first and self._random.random() < 0.9
        data = self._connect() if self._is_first else self._lawful()
        if not is_lawful:
            data = self._random.choice((*[_same] * 24, _flip, _cut, _noise, _insert))(
                self._random, data
            )
        self._is_first = False
        self.client.connection.feed(b"")
        while data:
            size = self._random.choice((1, 2, 7, len(data), len(data), len(data)))
            self.client.send(data[:size])
            data = data[size:]
        assert self.client.connection.unread <= _LIMITS.max_packet_bytes + 5
        self._read()
        return self._left > 0 and not self.client.is_closed

    def _read(self) -> None:
        """What the broker has sent is lawful."""
        for first, body in octets.frames(self.client.raw_bytes()):
            assert not self._is_over
            assert self._has_connack == (first != octets.CONNACK), "CONNACK is first, and once"
            self._has_connack = True
            self._is_over = first == octets.DISCONNECT
            if self._is_over:
                self._reason = f"{body[0]:#x}"
            if self.client.connection.version == V5:
                packet, size = mqtt5.read(memoryview(octets.frame(first, body)))
                assert size == len(octets.frame(first, body)), packet
            else:
                assert first != octets.DISCONNECT
                assert first >> 4 == 3 or len(body) < 3 or first == octets.SUBACK

    def end(self) -> str:
        """Break the connection off; return how it had ended."""
        if not self.client.is_closed:
            self.client.break_off()
            return "by the client"
        return f"after CONNACK {self._reason}" if self._has_connack else "before CONNACK"

    # -- lawful packets ---------------------------------------------------------------------------

    def _connect(self) -> bytes:
        dice, flags, rest = self._random, 0x80 | dice_flag(self._random, 2), []
        if dice.random() < 0.3:
            flags |= 4 | dice.randrange(3) << 3 | dice_flag(dice, 0x20)
            rest = [
                octets.with_properties(self._version, self._some(1, 2, 24)),
                octets.string("f/w"),
            ]
            rest.append(octets.string(b"gone"))
        return octets.connect(
            self._version,
            f"c{dice.randrange(12)}" if dice.random() < 0.9 or not flags & 2 else "",
            *rest,
            octets.string("stranger"),
            flags=flags,
            keep_alive=dice.choice((0, 1, 20)),
            properties=self._some(17, 23, 25, 33, 34, 39),
        )

    def _some(self, *identifiers: int) -> bytes:
        """Return some of these properties, with values."""
        dice = self._random
        values: dict[int, Callable[[], bytes]] = {
            1: lambda: bytes([dice.randrange(2)]),
            2: lambda: octets.uint32(dice.choice((0, 1, 60))),
            3: lambda: octets.string("text"),
            8: lambda: octets.string("f/r"),
            9: lambda: octets.string(dice.randbytes(4)),
            11: lambda: octets.length(dice.choice((1, 200, 268435455))),
            17: lambda: octets.uint32(dice.choice((0, 10, 2**32 - 1))),
            23: lambda: bytes([dice.randrange(2)]),
            24: lambda: octets.uint32(dice.choice((0, 5))),
            25: lambda: bytes([dice.randrange(2)]),
            33: lambda: octets.uint16(dice.choice((1, 2, 65535))),
            34: lambda: octets.uint16(dice.choice((0, 10))),
            35: lambda: octets.uint16(dice.choice((1, 2, 16, 17))),
            39: lambda: octets.uint32(dice.choice((20, 100, 10_000))),
        }
        found = [bytes([one]) + values[one]() for one in identifiers if dice.random() < 0.35]
        if dice.random() < 0.1:
            found.append(octets.pair("naam", "é"))
        return b"".join(found)

    def _topic(self) -> str:
        return "/".join(self._random.choices(_LEVELS, k=self._random.choice((1, 2, 2, 3, 5))))

    def _lawful(self) -> bytes:
        dice, version = self._random, self._version
        packet_id = dice.choice((1, 2, 3, 1000))
        kind = dice.choice("pppppsuaaaaaid")
        if kind == "p":
            return octets.publish(
                version,
                dice.choice((*["f/a", "f/b", "f/r"] * 5, "$crowd", self._topic(), "")),
                dice.choice((dice.randbytes(dice.choice((0, 1, 1, 100, 5000))), _CROWD)),
                qos=dice.randrange(3),
                packet_id=packet_id,
                flags=dice_flag(dice, 1),
                properties=self._some(1, 2, 3, 8, 9, 35),
            )
        if kind == "s":
            options = _OPTIONS if version == V5 else _OPTIONS[:3]
            filters = [
                (self._filter(), dice.choice(options)) for _ in range(dice.choice((1, 2, 9)))
            ]
            return octets.subscribe(
                version, *filters, packet_id=packet_id, properties=self._some(11)
            )
        if kind == "u":
            return octets.unsubscribe(version, self._filter(), packet_id=packet_id)
        if kind == "a":
            rest = dice.choice(((), (), (0,), (0, 0), (128,))) if version == V5 else ()
            return octets.ack(dice.choice((0x40, 0x50, 0x62, 0x70)), packet_id, *rest)
        return octets.PINGREQ if kind == "i" or dice.random() < 0.9 else octets.GOODBYE

    def _filter(self) -> str:
        dice = self._random
        return dice.choice(("f/a", "f/+", "f/#", "$share/g/f/+", self._topic(), self._topic()))


def dice_flag(dice: random.Random, bit: int) -> int:
    """Return this bit, or 0."""
    return bit * dice.randrange(2)


def _same(_: random.Random, data: bytes) -> bytes:
    return data


def _flip(dice: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 3))):
        changed[dice.randrange(len(changed))] = dice.choice(
            (0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256))
        )
    return bytes(changed)


def _cut(dice: random.Random, data: bytes) -> bytes:
    return data[: dice.randrange(len(data))]


def _insert(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + dice.randbytes(dice.choice((1, 2, 50))) + data[at:]


def _noise(dice: random.Random, _: bytes) -> bytes:
    return dice.randbytes(dice.choice((1, 4, 30, 300)))


def main(arguments: Sequence[str]) -> None:
    """Run in worlds of 20,000 packets each, and say what has come of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    closes: Counter[str] = Counter()
    slowest_s, began = 0.0, time.monotonic()
    for world in range(0, options.packets, 20_000):
        fuzz = Fuzz(options.seed * 1_000_003 + world)
        fuzz.run(min(20_000, options.packets - world))
        closes += fuzz.closes
        slowest_s = max(slowest_s, fuzz.slowest_s)
        if world % 200_000 == 0:
            print(f"{world:>9} packets, {_memory_mb()} MB", flush=True)
    print(f"{options.packets:>9} packets in {time.monotonic() - began:.0f} s, {_memory_mb()} MB")
    print(f"the slowest took {slowest_s * 1000:.1f} ms; connections ended: {dict(closes)}")


def _memory_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main(sys.argv[1:])
