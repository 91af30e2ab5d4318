"""What `nabij doctor` finds in one check."""

import enum

import msgspec

from broker.core.health import Cause


class CheckResult(enum.StrEnum):
    """The result of a check."""

    OK = "ok"
    NOTE = "note"
    BROKEN = "broken"


class Finding(msgspec.Struct, frozen=True):
    """One check."""

    verdict: CheckResult
    what: str
    found: str


def mend_of(cause: Cause) -> str:
    """Return how to fix a cause, as the end of a finding."""
    return f"To mend it: {cause.mend}"
