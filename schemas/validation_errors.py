"""Why a message is rejected: a code for machines, the field, and a sentence for people."""

import enum

import msgspec

from schemas.text import without_controls

MAX_FIELD, MAX_REASON = 100, 600  # bytes; docs/protocol.md has the largest receipt


class Code(enum.StrEnum):
    """Why a message was rejected, for machines. A reader reads a later code as `other`."""

    EMPTY_PAYLOAD = "empty_payload"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    INVALID_UTF8 = "invalid_utf8"
    NOT_JSON = "not_json"
    NOT_FINITE = "not_finite"
    NESTING_TOO_DEEP = "nesting_too_deep"
    DUPLICATE_KEY = "duplicate_key"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    NULL_ISLAND = "null_island"
    TEXT_TOO_LONG = "text_too_long"
    CONTROL_CHARACTERS = "control_characters"
    BAD_ID = "bad_id"
    BAD_TIME = "bad_time"
    BAD_TOPIC = "bad_topic"
    UNKNOWN_CATEGORY = "unknown_category"
    TOO_FAR_AHEAD = "too_far_ahead"
    TOO_OLD = "too_old"
    EXPIRED = "expired"
    UNKNOWN_INCIDENT = "unknown_incident"
    UNKNOWN_REPORT = "unknown_report"
    UNKNOWN_QUESTION = "unknown_question"
    SEVERAL_REPORTS = "several_reports"
    HAS_GROUP = "has_group"
    NOT_ALERTED = "not_alerted"
    NOT_A_MEMBER = "not_a_member"
    WRONG_ZONE = "wrong_zone"
    INCIDENT_CLOSED = "incident_closed"
    BAD_TRANSITION = "bad_transition"
    ID_REUSED = "id_reused"
    INTERNAL = "internal"
    OTHER = "other"


class Invalid(ValueError):  # noqa: N818 - an adjective of the message, read as `except Invalid`
    """A message that its sender must correct: `code`, `field` (JSON path) and `reason` (a sentence).

    `notes` say what else was odd in it. Field and reason may repeat what the sender wrote, up to 16
    KiB of anything: they are cut and made printable UTF-8, so that the receipt can always be sent
    and shown.
    """

    def __init__(self, code: Code, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.code = code
        self.field = sayable(field, MAX_FIELD)
        self.reason = sayable(reason, MAX_REASON)
        self.notes: tuple[str, ...] = ()


class FieldError(ValueError):
    """Raised in a Struct's own validation; msgspec passes its text on as `code|field|reason`."""

    def __init__(self, code: Code, field: str, reason: str) -> None:
        super().__init__(f"{code}|{field}|{reason}")


def sayable(text: str, limit: int) -> str:
    """Return `text` in printable characters, and at most `limit` bytes long in JSON."""
    plain = without_controls(text)[: limit + 1]
    if _size(plain) <= limit:
        return plain
    while _size(plain) > limit - _CUT:
        plain = plain[:-1]
    return f"{plain}…"


_CUT = len("…".encode())


def _size(text: str) -> int:
    return len(msgspec.json.encode(text)) - 2
