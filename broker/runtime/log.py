"""How this process logs: structlog to standard error, as text for people or JSON for machines.

At level info and above nothing names a user, a position or a text: those are debug's. As JSON every
line is JSON: what libraries log, warnings and uncaught errors go the same way.
"""

import contextlib
import logging
import re
import sys
import threading
import warnings
from types import TracebackType
from typing import IO, BinaryIO, Generic, TextIO, TypeVar, cast

import orjson
import structlog
from structlog.typing import Processor

T = TypeVar("T", str, bytes)

_LEVELS = logging.getLevelNamesMapping()

# What moves the cursor, recolours or reorders a terminal's text: C0 but tab and line feed, C1, and
# the marks that turn the direction of writing (Unicode TR #36, 3.1). A sender may
# use them to show an operator something else than what is there.
STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]"
)


def printable(text: str) -> str:
    """Return `text` with every character that would steer a terminal written out, as an escape."""
    return STEERING.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


_log = structlog.get_logger()


def is_json(log_format: str) -> bool:
    """Whether `log_format` (json, text, or auto: text on a terminal, else json) is JSON here."""
    return log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())


def set_up(level: str, log_format: str, **context: str) -> None:
    """Log at `level` (debug, info, warning, error) and above, as `log_format`.

    `context` goes into every line (service=, worker=).
    """
    as_json = is_json(log_format)
    threshold = _LEVELS[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    structlog.configure(
        processors=[*shared, *(_json_ending() if as_json else _text_ending())],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=(
            structlog.BytesLoggerFactory(cast("BinaryIO", _Forgiving(sys.stderr.buffer)))
            if as_json
            else structlog.PrintLoggerFactory(cast("TextIO", _Forgiving(sys.stderr)))
        ),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**context)
    _set_up_libraries(shared, threshold, as_json=as_json)


def _set_up_libraries(shared: list[Processor], threshold: int, *, as_json: bool) -> None:
    """Libraries (redis, uvicorn, asyncio) log through the standard library: what is amiss only."""
    handler = logging.StreamHandler(cast("TextIO", _Forgiving(sys.stderr)))
    formatter: logging.Formatter = _Printable("%(asctime)s %(levelname)s %(name)s: %(message)s")
    if as_json:
        formatter = structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_json_ending()[:-1],
                structlog.processors.JSONRenderer(serializer=_to_json_text),
            ],
        )
        sys.excepthook = _uncaught
        threading.excepthook = lambda told: _uncaught(
            told.exc_type, told.exc_value, told.exc_traceback
        )
        sys.unraisablehook = lambda told: _uncaught(
            told.exc_type, told.exc_value, told.exc_traceback
        )
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)
    logging.captureWarnings(capture=as_json)
    if as_json:
        warnings.formatwarning = _one_line


def _uncaught(
    kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None
) -> None:
    _log.error("uncaught", exc_info=(kind, error, traceback))


def _one_line(message: Warning | str, *where: object, **_: object) -> str:
    return f"{message} ({':'.join(map(str, where[1:3]))})"


class _Printable(logging.Formatter):
    """Lines of libraries, which may quote what a stranger wrote."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with what would steer a terminal written out."""
        return printable(super().format(record))


class _Forgiving(Generic[T]):
    """A stream that may be gone: a service goes on though its terminal or its reader is closed."""

    def __init__(self, stream: IO[T]) -> None:
        self._stream: IO[T] = stream

    def write(self, text: T) -> None:
        """Write, or lose it."""
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flush, or lose it."""
        with contextlib.suppress(OSError):
            self._stream.flush()


def _json_ending() -> list[Processor]:
    # Without locals: they hold passwords, positions and texts.
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(frames),
        structlog.processors.JSONRenderer(serializer=_to_json),
    ]


def _to_json(event: object, **_: object) -> bytes:
    text = orjson.dumps(event, default=str).decode()  # its strings escape C0 alone
    return STEERING.sub(lambda found: f"\\u{ord(found.group()):04x}", text).encode()


def _to_json_text(event: object, **_: object) -> str:
    return _to_json(event).decode()


def _text_ending() -> list[Processor]:
    plain = structlog.dev.plain_traceback  # the rich one shows locals
    console = structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0, exception_formatter=plain)
    return [lambda *event: printable(str(console(*event)))]
