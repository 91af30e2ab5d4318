"""How this process logs: structlog to standard error, as text for people or JSON for machines.

At level info and above nothing names a user, a position or a text: those are debug's.
"""

import contextlib
import logging
import sys
from typing import IO, BinaryIO, Generic, TextIO, TypeVar, cast

import orjson
import structlog
from structlog.typing import Processor

T = TypeVar("T", str, bytes)

_LEVELS = logging.getLevelNamesMapping()


def set_up(level: str, log_format: str, **context: str) -> None:
    """Log at `level` (debug, info, warning, error) and above, as `log_format`.

    `log_format` is json, text, or auto: text on a terminal, else json. `context` goes into every
    line (service=, worker=).
    """
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
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
    # Libraries (redis, uvicorn, asyncio) log through the standard library: what is amiss only.
    logging.basicConfig(
        stream=sys.stderr,
        level=max(threshold, logging.WARNING),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )


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
    return orjson.dumps(event, default=str)


def _text_ending() -> list[Processor]:
    plain = structlog.dev.plain_traceback  # the rich one shows locals
    return [structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0, exception_formatter=plain)]
