"""Moments as Redis keeps them: whole Unix milliseconds."""

from datetime import UTC, datetime


def milliseconds(moment: datetime) -> int:
    """Return Unix milliseconds: the inverse of `moment_of`."""
    return round(moment.timestamp() * 1000)


def moment_of(ms: int | str | bytes) -> datetime:
    """Return the moment of Unix milliseconds."""
    return datetime.fromtimestamp(int(ms) / 1000, UTC)
