"""What is wrong with a stream as a whole, and with one of its rows."""

SHOWN = 60  # characters of a stranger's value in a message


class StreamError(Exception):
    """A stream or its mapping that the user must mend."""


class BadRowError(ValueError):
    """A row that cannot be used: `reason` is the same for all of its kind, `detail` this row's."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def shown(value: str) -> str:
    """Return a stranger's value in quotes, short, and with no character that a terminal obeys."""
    return repr(value if len(value) <= SHOWN else value[: SHOWN - 1] + "…")
