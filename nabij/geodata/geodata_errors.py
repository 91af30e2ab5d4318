"""Errors of a stream as a whole, and of one of its rows."""

SHOWN = 60  # characters of a foreign value in a message


class StreamError(Exception):
    """A stream or mapping that the user must correct."""


class BadRowError(ValueError):
    """A row that cannot be used: `reason` is shared by all of its kind, `detail` is this row's."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def shown(value: str) -> str:
    """Return a foreign value in quotes, shortened and without control characters."""
    return repr(value if len(value) <= SHOWN else value[: SHOWN - 1] + "…")
