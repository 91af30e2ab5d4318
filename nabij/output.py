"""What people and programs read: results on standard output, everything else on standard error."""

import sys
import textwrap
import time
from pathlib import Path
from typing import Any, Self

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from broker.runtime.log import STEERING, printable

__all__ = [
    "Progress",
    "console_err",
    "counted",
    "one_line",
    "print_json",
    "print_line",
    "print_table",
    "printable",
    "program",
    "say",
    "say_wrapped",
]

LINE_EVERY_S = 5.0
WIDEST = 78  # of a paragraph

console = Console(highlight=False)
console_err = Console(stderr=True, highlight=False)


def one_line(text: str) -> str:
    """Return `printable` of a text that must not begin lines of its own."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def program() -> str:
    """Return what was typed to start Nabij, for a command that people are told to type."""
    return sys.argv[0] if Path(sys.argv[0]).name == "nabij" else "nabij"


def say(text: str) -> None:
    """Write a line for people, on standard error."""
    console_err.print(printable(text), markup=False, soft_wrap=True)


def say_wrapped(text: str, indent: str = "") -> None:
    """Write a paragraph for people, on standard error, broken between words."""
    for line in textwrap.wrap(
        text,
        min(WIDEST, console_err.width),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ):
        say(line)


def print_line(text: str) -> None:
    """Write a line of the result, on standard output."""
    console.print(printable(text), markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Write the result as one JSON document on one line, on standard output."""
    text = msgspec.json.encode(value).decode()  # its strings escape C0 alone
    sys.stdout.write(STEERING.sub(lambda found: f"\\u{ord(found.group()):04x}", text) + "\n")
    sys.stdout.flush()


def print_table(heads: list[str], rows: list[list[str]]) -> None:
    """Write rows in columns, on standard output; plain, so that other programs can cut them."""
    lines = [heads, *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print_line("  ".join(cells).rstrip())


def counted(number: int, one: str) -> str:
    """Return `1 report`, `2 reports`."""
    return f"{number} {one}{'' if number == 1 else 's'}"


class Progress:
    """Long work: a bar on a terminal, elsewhere a line every five seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._said_at = time.monotonic()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console_err,
            transient=True,
            disable=not console_err.is_terminal,
        )
        self._task = self._bar.add_task(what, total=None)

    def describe(self, what: str) -> None:
        """Say what is being done now."""
        self._what = what
        self._bar.update(self._task, description=what)

    def at(self, done: int, total: int) -> None:
        """Say how far it is."""
        self._bar.update(self._task, completed=done, total=total)
        if self._bar.disable and time.monotonic() - self._said_at >= LINE_EVERY_S:
            self._said_at = time.monotonic()
            say(f"{self._what}: {done:,} of {total:,}")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
