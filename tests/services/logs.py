"""What the services in this process log, as lines."""

import contextlib
import traceback
from collections.abc import Iterator, MutableMapping
from typing import Any

import structlog


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """Collect each line at level info and above, with the traceback of its error."""
    lines: list[str] = []

    def collect(_: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if level != "debug":
            error = event.get("exc_info")
            shown = "".join(traceback.format_exception(error)) if _is_error(error) else ""
            lines.append(f"{dict(event)} {shown}")
        return event

    processors = structlog.get_config()["processors"]
    processors.insert(0, collect)
    try:
        yield lines
    finally:
        structlog.get_config()["processors"].remove(collect)


def _is_error(value: object) -> bool:
    if value is True:
        raise AssertionError("log wordless(error), not what sys.exc_info has")
    return isinstance(value, BaseException)
