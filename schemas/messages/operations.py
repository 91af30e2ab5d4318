"""What operators read: the state of each service, probes, alarms and dead letters."""

import enum
from typing import Annotated

from msgspec import Struct

from schemas.lenient import may_grow
from schemas.messages.fields import Time
from schemas.taxonomy import Desk

__all__ = ["Probe", "Rejection", "ServiceState", "ServiceStatus", "Unattended"]


class ServiceState(enum.StrEnum):
    """The state of a service instance; `lost` is its last will."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    LOST = "lost"


class ServiceStatus(Struct, frozen=True, kw_only=True):
    """One instance of a service, retained."""

    service: str
    instance: str
    state: Annotated[ServiceState, may_grow(ServiceState.STARTING)]
    at: Time
    version: str


class Probe(Struct, frozen=True, kw_only=True):
    """What a worker publishes and must receive itself, to check its path over the MQTT broker."""

    number: int
    nonce: str


class Unattended(Struct, frozen=True, kw_only=True):
    """An alarm: messages that no desk of `zone` has confirmed within the policy's `unattended_s`.

    `zone` is a police zone, or a municipality where `desk` is the city's; `oldest_at` is when the
    oldest of the `count` messages was committed. Retained until a desk has them all.
    """

    desk: Annotated[Desk, may_grow(Desk.POLICE)]
    zone: str
    count: int
    oldest_at: Time
    at: Time


class Rejection(Struct, frozen=True, kw_only=True):
    """A dead letter: a message whose sender cannot be answered, or on which a handler failed.

    `payload` is its beginning, as text with invalid UTF-8 replaced; `size` its length in bytes.
    """

    service: str
    topic: str
    code: str
    field: str
    reason: str
    at: Time
    payload: str
    size: int
