"""Compares what a client saw at our MQTT broker and at Mosquitto; `differences.toml` has what may differ."""

import tomllib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.edge.differential_clients import Answer, Delivered, Event, Name, Released

LIST = Path(__file__).with_name("differences.toml")
_NOBODY = 16
_TAKEN_OVER = Answer("DISCONNECT", (142,))
_PUBLISH_ANSWERS = {"PUBACK", "PUBREC"}


def listed() -> dict[str, dict[str, str]]:
    """Return the differences on purpose, by name."""
    found: dict[str, dict[str, str]] = tomllib.loads(LIST.read_text(encoding="utf-8"))
    return found


@dataclass
class Message:
    """All copies of one application message that came at a time."""

    qos: int = 0
    retain: bool = False
    duplicate: bool = False
    identifiers: frozenset[int] = frozenset()
    properties: frozenset[object] = frozenset()
    copies: int = 0

    def add(self, copy: Delivered) -> None:
        """Add a copy."""
        self.qos = max(self.qos, copy.qos)
        self.retain |= copy.retain
        self.duplicate |= copy.duplicate
        self.identifiers |= frozenset(copy.identifiers)
        self.properties |= {copy.properties}
        self.copies += 1

    @property
    def facts(self) -> tuple[object, ...]:
        """What has to be the same, however many copies there are."""
        return (self.qos, self.retain, self.duplicate, self.identifiers, self.properties)


def messages_in(events: Iterable[Event]) -> dict[Name, Message]:
    """Return what was delivered, in the order of its first copies."""
    found: dict[Name, Message] = {}
    for event in events:
        if isinstance(event, Delivered):
            found.setdefault(event.name, Message()).add(event)
    return found


def order_in(messages: dict[Name, Message]) -> dict[tuple[str, int], list[bytes]]:
    """Return the payloads in their order, which counts within a topic and QoS (4.6.0-5)."""
    found: dict[tuple[str, int], list[bytes]] = {}
    for (topic, payload), message in messages.items():
        found.setdefault((topic, message.qos), []).append(payload)
    return found


@dataclass
class Comparison:
    """Raises AssertionError where the two differ. `used` counts how often each difference was met."""

    used: Counter[str] = field(default_factory=Counter)
    sequences: int = 0
    steps: int = 0

    def compare(
        self,
        ours: list[Event],
        theirs: list[Event],
        *,
        is_queued: bool,
        is_windowed: bool,
        dropped: Collection[Name] = (),
    ) -> None:
        """Compare what came in one step.

        `is_queued`: it may have waited for the client; `is_windowed`: in parts, so that neither
        order nor duplicates can be the same. `dropped`: what Mosquitto has sent again too early.
        """
        self._compare_answers(ours, theirs)
        mine, other = messages_in(ours), messages_in(theirs)
        for name in (mine.keys() - other.keys()).intersection(dropped):
            self.used["sent-again"] += 1
            del mine[name]
        assert mine.keys() == other.keys(), (
            f"other messages: {mine.keys() - other.keys()}, Mosquitto {other.keys() - mine.keys()}"
        )
        if not is_windowed:
            assert order_in(mine) == order_in(other), f"another order: {mine}, Mosquitto {other}"
            assert _released(ours) == _released(theirs), "other messages were released"
        for name, message in mine.items():
            self._compare_message(
                message, other[name], is_queued=is_queued, is_windowed=is_windowed
            )

    def _compare_answers(self, ours: list[Event], theirs: list[Event]) -> None:
        mine, other = (
            [event for event in events if isinstance(event, Answer)] for events in (ours, theirs)
        )
        if _TAKEN_OVER in mine and _TAKEN_OVER not in other:
            self.used["taken-over-in-silence"] += 1
            mine.remove(_TAKEN_OVER)
        assert len(mine) == len(other), f"other answers: {mine}, Mosquitto {other}"
        for one, two in zip(mine, other, strict=True):
            if one.kind in _PUBLISH_ANSWERS and one.says == (_NOBODY,) != two.says == (0,):
                assert one.kind == two.kind
                self.used["no-matching-subscribers"] += 1
            else:
                assert one == two, f"another answer: {one}, Mosquitto {two}"

    def _compare_message(
        self, mine: Message, other: Message, *, is_queued: bool, is_windowed: bool
    ) -> None:
        if other.copies > 1:
            self.used["one-copy"] += 1
        if mine.facts == other.facts:
            return
        assert is_queued or is_windowed, f"{mine}, Mosquitto {other}"
        # Copies of QoS 0 were lost on the way: what our one copy says of them, theirs do not.
        self.used["one-copy-kept"] += 1
        assert (mine.qos, mine.properties) == (other.qos, other.properties)
        assert mine.identifiers >= other.identifiers, f"{mine}, Mosquitto {other}"
        assert mine.retain >= other.retain, f"{mine}, Mosquitto {other}"
        assert is_windowed or mine.duplicate == other.duplicate, f"{mine}, Mosquitto {other}"


def _released(events: Iterable[Event]) -> set[Name]:
    return {event.name for event in events if isinstance(event, Released)}
