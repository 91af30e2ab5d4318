"""What a topic is: its template, payload and ends, and how messages on it are routed.

REPORT.topic(user="ann")  →  "nabij/v1/u/ann/up/report"
REPORT.parse("nabij/v1/u/ann/up/report")  →  {"user": "ann"}
REPORT.filter()           →  "nabij/v1/u/+/up/report"
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, get_args, get_type_hints
from uuid import UUID

from schemas import messages
from schemas.codec import Decoder
from schemas.messages import Position, Subject
from schemas.roles import Role

ROOT = "nabij/v1"
LEVEL = r"[a-z0-9-]{1,40}"

T = TypeVar("T")
_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")
_LEVEL_ONLY = re.compile(LEVEL)


@dataclass(frozen=True)
class Topic(Generic[T]):
    """One row of the topic table.

    `payload` is the Struct (or union of Structs) on it. The services are one end of each topic;
    `service` names them for readers of documents. A topic that services receive has a `receipt`
    topic, on which the sender is answered. It may have a `partition`: the payload's field (an
    incident's or question's id, or a Position) that decides the partition; without one it is the
    first. `name` is the template's last fixed level, as in metrics; `subject` is the same in
    receipts.

    Raises:
        ValueError: the row contradicts itself, or cannot be answered or routed.
    """

    template: str
    payload: type[T]
    sender: Role
    receiver: Role
    service: str = "services"
    receipt: "Topic[messages.Receipt] | None" = None
    partition: str | None = None
    qos: int = 1
    retain: bool = False
    name: str = field(init=False, compare=False)
    subject: Subject | None = field(init=False, compare=False)
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _filter: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _decoder: Decoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        fixed = [level for level in self.template.split("/") if "{" not in level]
        object.__setattr__(self, "name", fixed[-1])
        for name, level in (("_pattern", LEVEL), ("_filter", "[^/]*")):
            levels = _PLACEHOLDER.sub(rf"(?P<\1>{level})", f"{ROOT}/{self.template}")
            object.__setattr__(self, name, re.compile(levels))
        object.__setattr__(self, "_decoder", Decoder(self.payload))
        object.__setattr__(self, "subject", self._subject_of() if self.is_received else None)
        self._check_partition()

    def _subject_of(self) -> Subject:
        if self.receiver is not Role.SERVICE:
            raise ValueError(f"{self.template}: neither its sender nor its receiver is a service")
        if self.name not in {*Subject} - {Subject.OTHER}:
            raise ValueError(
                f"{self.template}: receipts have no Subject {self.name!r}: add one to "
                "schemas/messages/receipts.py"
            )
        if self.receipt is None or not {*self.receipt.levels} <= {*self.levels}:
            raise ValueError(
                f"{self.template}: needs a receipt topic with no other levels than {self.levels}"
            )
        return Subject(self.name)

    def _check_partition(self) -> None:
        for payload in self.payloads if self.partition else ():
            kind = get_type_hints(payload).get(str(self.partition))
            if kind not in (UUID, Position):
                raise ValueError(
                    f"{self.template}: {payload.__name__}.{self.partition} is {kind}: "
                    "only a UUID or a Position says in which partition it is handled"
                )

    @property
    def is_received(self) -> bool:
        """Whether devices and desks send it and services receive it."""
        return self.sender is not Role.SERVICE

    @property
    def payloads(self) -> tuple[type[Any], ...]:
        """The Structs on it; a union has several."""
        return get_args(self.payload) or (self.payload,)

    @property
    def levels(self) -> tuple[str, ...]:
        """The names of its variable levels, in order."""
        return tuple(_PLACEHOLDER.findall(self.template))

    @property
    def from_and_to(self) -> tuple[str, str]:
        """Its sender and receiver, for documents."""
        sender, receiver = (
            self.service if role is Role.SERVICE else role.value
            for role in (self.sender, self.receiver)
        )
        return sender, receiver

    def partition_key(self, value: T) -> UUID | Position | None:
        """Return the value that decides the partition of `value`; None: the first."""
        key: UUID | Position | None = getattr(value, self.partition) if self.partition else None
        return key

    def topic(self, **levels: str) -> str:
        """Return the topic for these levels.

        Raises:
            ValueError: a level is missing, unknown, or not `[a-z0-9-]{1,40}`.
        """
        for name, value in levels.items():
            if not _LEVEL_ONLY.fullmatch(value):
                raise ValueError(f"topic level {name}={value!r} is not {LEVEL}")
        if len(levels) > self._pattern.groups:
            raise ValueError(f"topic {self.template} has no such levels as all of {[*levels]}")
        try:
            return f"{ROOT}/{self.template.format(**levels)}"
        except KeyError as missing:
            raise ValueError(f"topic {self.template} needs the level {missing}") from None

    def by(self, level: str) -> Callable[[str], str]:
        """Return a fast form of `topic` for its only level, for a fan-out.

        Raises:
            ValueError: from the returned function, when the level is not `[a-z0-9-]{1,40}`.
        """
        before, after = self.topic(**{level: "0"}).split("/0/")
        before, after = f"{before}/", f"/{after}"

        def topic(value: str) -> str:
            if not _LEVEL_ONLY.fullmatch(value):
                raise ValueError(f"topic level {level}={value!r} is not {LEVEL}")
            return before + value + after

        return topic

    def parse(self, topic: str) -> Mapping[str, str] | None:
        """Return the levels of `topic`, or None when it does not match."""
        match = self._pattern.fullmatch(topic)
        return match.groupdict() if match else None

    def parse_filtered(self, topic: str) -> Mapping[str, str] | None:
        """Return the levels of a topic that came by `filter`: any text, also invalid levels."""
        match = self._filter.fullmatch(topic)
        return match.groupdict() if match else None

    @property
    def matcher(self) -> str:
        """A regular expression, without groups, of the topics that match `filter`."""
        return f"{ROOT}/" + _PLACEHOLDER.sub("[^/]*", self.template)

    def overlaps(self, other: "Topic[Any]") -> bool:
        """Whether an MQTT topic could match both this and `other`."""
        ours, theirs = self.filter().split("/"), other.filter().split("/")
        return len(ours) == len(theirs) and all(
            one == another or "+" in (one, another)
            for one, another in zip(ours, theirs, strict=True)
        )

    def filter(self, **levels: str) -> str:
        """Return the MQTT topic filter, with `+` for every level that is not given."""
        return f"{ROOT}/" + _PLACEHOLDER.sub(lambda m: levels.get(m[1], "+"), self.template)

    def decode(self, payload: bytes) -> T:
        """Return the typed payload.

        Raises:
            schemas.codec.Invalid: with code, field and reason.
        """
        return self.read(payload)[0]

    def read(self, payload: bytes) -> tuple[T, tuple[str, ...]]:
        """Return the typed payload, and notes for its sender of what was odd in it.

        Raises:
            schemas.codec.Invalid: as `decode`, with `notes` too.
        """
        read: tuple[T, tuple[str, ...]] = self._decoder.read(payload)
        return read


def distinct(topics: Sequence[Topic[Any]]) -> tuple[Topic[Any], ...]:
    """Return the topics of a contract.

    Raises:
        ValueError: a message could match two of them, or a receipt be about two of them.
    """
    answered: dict[tuple[Topic[Any] | None, Subject], Topic[Any]] = {}
    for number, topic in enumerate(topics):
        for other in topics[:number]:
            if topic.overlaps(other):
                raise ValueError(f"{topic.template} and {other.template} may be one topic")
        if topic.subject is not None:
            other = answered.setdefault((topic.receipt, topic.subject), topic)
            if other is not topic:
                raise ValueError(f"a receipt cannot tell {topic.template} from {other.template}")
    return tuple(topics)
