"""Moments as Redis keeps them: whole Unix milliseconds."""

from datetime import UTC, datetime


def milliseconds(moment: datetime) -> int:
    """Return Unix milliseconds; of what `moment_of` returned, the same as it was given."""
    return round(moment.timestamp() * 1000)


def moment_of(ms: int | str | bytes) -> datetime:
    """Return the moment of Unix milliseconds."""
    return datetime.fromtimestamp(int(ms) / 1000, UTC)
