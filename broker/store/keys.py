"""Every key, once. All carry the partition tag, so that one script touches one cluster slot.

The table, with types and lifetimes, is in the docstring of `broker.store`.
"""

import zlib
from uuid import UUID

PREFIX = "nabij:{p0}:"  # one partition; more are for «As fast as the MQTT broker allows»
_BUCKETS = 0x3FFF  # small hashes stay packed: 16,384 buckets hold a million people at 61 each

SEQUENCE = f"{PREFIX}sequence"
DEADLINES = f"{PREFIX}deadlines"
OUTBOX = f"{PREFIX}outbox"
OUTBOX_SENT = f"{PREFIX}outbox-sent"
OUTBOX_AGAIN = f"{PREFIX}outbox-again"
OUTBOX_MESSAGES = f"{PREFIX}outbox-messages"
OPEN_INCIDENTS = f"{PREFIX}open-incidents"
UNCONFIRMED = f"{PREFIX}unconfirmed"
DROPPED = f"{PREFIX}dropped"
RESTORED = f"{PREFIX}restored"
RESTORING = f"{PREFIX}restoring"
DEAD_LETTERS = f"{PREFIX}dead-letters"
DEAD_LETTER_TIMES = f"{PREFIX}dead-letter-times"
DEAD_LETTER_COUNTS = f"{PREFIX}dead-letter-counts"
ZONES = f"{PREFIX}zones"
ZONES_VERSION = f"{PREFIX}zones-version"


def events(reader: str) -> str:
    """Return the key of the stream that the service `reader` reads."""
    return f"{PREFIX}events:{reader}"


def receipt(message: UUID) -> str:
    """Return the key of what became of a device's message."""
    return f"{PREFIX}receipt:{message}"


def incident(identifier: UUID | str) -> str:
    """Return the key of an incident."""
    return f"{PREFIX}incident:{identifier}"


def reaching(index_cell: int) -> str:
    """Return the key of the open incidents whose alerts reach into a cell of resolution 9."""
    return f"{PREFIX}open:{index_cell:x}"


def joinable(kind: str, place: int) -> str:
    """Return the key of the open incidents that a report of `kind` in this place may join."""
    return f"{PREFIX}join:{kind}:{place:x}"


def people(identifier: UUID) -> str:
    """Return the key of who was alerted to an incident, reported it or helps."""
    return f"{PREFIX}people:{identifier}"


def alerts(identifier: UUID) -> str:
    """Return the key of each recipient's alert of an incident."""
    return f"{PREFIX}alerts:{identifier}"


def delivered(identifier: UUID) -> str:
    """Return the key of whose device has confirmed its alert of an incident."""
    return f"{PREFIX}delivered:{identifier}"


def history(identifier: UUID) -> str:
    """Return the key of what happened to an incident, and why."""
    return f"{PREFIX}history:{identifier}"


def reports(identifier: UUID) -> str:
    """Return the key of the reports of an incident."""
    return f"{PREFIX}reports:{identifier}"


def group_log(identifier: UUID) -> str:
    """Return the key of what happened in an incident's group."""
    return f"{PREFIX}group:{identifier}"


def question(identifier: UUID) -> str:
    """Return the key of a question of the police."""
    return f"{PREFIX}question:{identifier}"


def involved(user: str) -> str:
    """Return the key of the incidents that a user was alerted to or reported."""
    return f"{PREFIX}involved:{user}"


def at(index_cell: int) -> str:
    """Return the key of the people in a cell of resolution 9."""
    return f"{PREFIX}at:{index_cell:x}"


def where_bucket(user: str) -> int:
    """Return which bucket holds where a user is."""
    return zlib.crc32(user.encode()) & _BUCKETS
