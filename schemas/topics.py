"""Every topic, once: a template that builds and parses it, bound to its payload, QoS and retain.

REPORT.topic(user="ann")  →  "nabij/v1/u/ann/up/report"
REPORT.parse("nabij/v1/u/ann/up/report")  →  {"user": "ann"}
REPORT.filter()           →  "nabij/v1/u/+/up/report"
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from schemas import messages
from schemas.codec import Decoder

ROOT = "nabij/v1"
LEVEL = r"[a-z0-9-]{1,40}"

T = TypeVar("T")
_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")
_LEVEL_ONLY = re.compile(LEVEL)


@dataclass(frozen=True)
class Topic(Generic[T]):
    """One row of the topic table.

    `payload` is the Struct (or union of Structs) on it; `sender` and `receiver` are for readers.
    `name` is the template's last fixed level, as in metrics and receipts.
    """

    template: str
    payload: type[T]
    sender: str
    receiver: str
    qos: int = 1
    retain: bool = False
    name: str = field(init=False, compare=False)
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _decoder: Decoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        fixed = [level for level in self.template.split("/") if "{" not in level]
        object.__setattr__(self, "name", fixed[-1])
        levels = _PLACEHOLDER.sub(rf"(?P<\1>{LEVEL})", f"{ROOT}/{self.template}")
        object.__setattr__(self, "_pattern", re.compile(levels))
        object.__setattr__(self, "_decoder", Decoder(self.payload))

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
        """Return `topic` for its only level, with all the rest done once: for a fan-out.

        Raises:
            ValueError: from what is returned, when the level is not `[a-z0-9-]{1,40}`.
        """
        before, after = self.topic(**{level: "0"}).split("/0/")
        before, after = f"{before}/", f"/{after}"

        def topic(value: str) -> str:
            if not _LEVEL_ONLY.fullmatch(value):
                raise ValueError(f"topic level {level}={value!r} is not {LEVEL}")
            return before + value + after

        return topic

    def parse(self, topic: str) -> Mapping[str, str] | None:
        """Return the levels of `topic`, or None when it is not one of these."""
        match = self._pattern.fullmatch(topic)
        return match.groupdict() if match else None

    def filter(self, **levels: str) -> str:
        """Return the MQTT topic filter: `+` for every level that is not given."""
        return f"{ROOT}/" + _PLACEHOLDER.sub(lambda m: levels.get(m[1], "+"), self.template)

    def decode(self, payload: bytes) -> T:
        """Return the typed payload.

        Raises:
            schemas.codec.Invalid: with code, field and reason.
        """
        return self.read(payload)[0]

    def read(self, payload: bytes) -> tuple[T, tuple[str, ...]]:
        """Return the typed payload, and what its sender is to be told of what was odd in it.

        Raises:
            schemas.codec.Invalid: as `decode`, with `notes` too.
        """
        read: tuple[T, tuple[str, ...]] = self._decoder.read(payload)
        return read


REPORT = Topic("u/{user}/up/report", messages.Report, "participant", "intake")
PRESENCE = Topic("u/{user}/up/presence", messages.Presence, "participant", "presence")
REPLY = Topic("u/{user}/up/reply", messages.Reply, "participant", "groups")
MESSAGE = Topic("u/{user}/up/message", messages.GroupMessage, "participant", "groups")
ANSWER = Topic("u/{user}/up/answer", messages.Answer, "participant", "police")
SYNC = Topic("u/{user}/up/sync", messages.Sync, "participant", "groups")
DELIVERED = Topic("u/{user}/up/receipt", messages.DeliveryReceipt, "participant", "police")
RECEIPT = Topic("u/{user}/down/receipt", messages.Receipt, "services", "participant")
ALERT = Topic("u/{user}/down/alert", messages.Alert, "alerting", "participant")
BRIEF = Topic("u/{user}/down/brief", messages.Brief, "alerting", "participant")
GROUP = Topic("u/{user}/down/group", messages.GroupEvent, "groups", "member")
QUESTION = Topic("u/{user}/down/question", messages.Question, "police", "participant")
ESCALATION = Topic(
    "police/{zone}/escalation/{priority}", messages.Escalation, "intake or police", "operations"
)
INCIDENT = Topic(
    "police/{zone}/incident/{incident}", messages.IncidentState, "police", "operations", retain=True
)
COMMAND: Topic[Any] = Topic(
    "police/{zone}/command",
    messages.PoliceCommand,  # type: ignore[arg-type]  # a union, not a class
    "operations",
    "police",
)
COMMAND_RECEIPT = Topic("police/{zone}/receipt", messages.Receipt, "police", "operations")
DESK_DELIVERED = Topic("police/{zone}/up/receipt", messages.DeliveryReceipt, "operations", "police")
DESK_SYNC = Topic("police/{zone}/up/sync", messages.DeskSync, "operations", "police")
CASE = Topic("city/{municipality}/case/{category}", messages.Case, "city", "city desk")
CITY_RECEIPT = Topic("city/{municipality}/receipt", messages.Receipt, "city", "city desk")
CITY_DELIVERED = Topic(
    "city/{municipality}/up/receipt", messages.DeliveryReceipt, "city desk", "city"
)
CITY_SYNC = Topic("city/{municipality}/up/sync", messages.DeskSync, "city desk", "city")
UNATTENDED = Topic(
    "ops/unattended/{desk}/{zone}", messages.Unattended, "police", "operators", retain=True
)
SERVICE = Topic(
    "ops/service/{name}/{instance}", messages.ServiceStatus, "service", "operators", retain=True
)
PROBE = Topic("ops/probe/{name}/{instance}", messages.Probe, "service", "the same worker")
REJECTED = Topic("ops/rejected/{service}", messages.Rejection, "service", "operators")

TOPICS: tuple[Topic[Any], ...] = (
    REPORT,
    PRESENCE,
    REPLY,
    MESSAGE,
    ANSWER,
    SYNC,
    DELIVERED,
    RECEIPT,
    ALERT,
    BRIEF,
    GROUP,
    QUESTION,
    ESCALATION,
    INCIDENT,
    COMMAND,
    COMMAND_RECEIPT,
    DESK_DELIVERED,
    DESK_SYNC,
    CASE,
    CITY_RECEIPT,
    CITY_DELIVERED,
    CITY_SYNC,
    UNATTENDED,
    SERVICE,
    PROBE,
    REJECTED,
)


def template_of(topic: str) -> str:
    """Return which of the topics it is: what a log may say of it, since that names nobody."""
    return next((one.template for one in TOPICS if one.parse(topic) is not None), "?")
