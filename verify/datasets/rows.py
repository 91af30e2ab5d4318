"""The text and the rows of a CSV file, whatever its encoding, delimiter and damage.

Files come from strangers and may be large: everything here reads on in constant memory. What
the file does not say is found out: gzip by its first bytes, the encoding by reading the file
once, the delimiter by the columns that the mapping names.
"""

import codecs
import csv
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import IO, TextIO

from nabij.geodata.geodata_errors import StreamError, shown

DELIMITERS = (",", ";", "\t", "|")
LINE_MOST = 1 << 20  # characters: a longer line is no CSV
_CHUNK = 1 << 17
_PROGRESS_ROWS = 5_000
_UNIT_SEPARATOR = "\x1f"  # stands for a delimiter of several characters, which csv does not know
_SEP_LINE = re.compile(r"sep=(.)\s*", re.IGNORECASE)
_BOMS = (  # longest first: UTF-16's is how UTF-32's begins
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_CSV = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook: unpack it, or export it as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook: export it as CSV"),
    (b"PAR1", "a Parquet file: export it as CSV"),
    (b"%PDF", "a PDF"),
    (b"SQLite format 3", "an SQLite database: export the table as CSV"),
)

csv.field_size_limit(LINE_MOST)

OnBytes = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file is written; None: found out. `quote` is empty where quotes mean nothing."""

    encoding: str | None = None
    delimiter: str | None = None
    quote: str = '"'


@dataclass(frozen=True, slots=True)
class Record:
    """One row. `line` is its first; `lines` are its physical lines where it has several."""

    line: int
    fields: list[str]
    lines: tuple[str, ...] = ()
    whole: bool = True


@contextmanager
def opened(path: Path, layout: Layout, on_bytes: OnBytes | None = None) -> Iterator["Rows"]:
    """Open a file, gzipped or not.

    Raises:
        StreamError: it cannot be read, is empty, or is no text; also while it is being read.
    """
    try:
        if path.is_dir():
            raise StreamError(f"{path}: is a directory, not a file")
        size = path.stat().st_size
        encoding = layout.encoding or _encoding_of(path)
        with ExitStack() as stack:
            raw = stack.enter_context(path.open("rb"))
            binary = stack.enter_context(_unzipped(raw))
            # A byte that the encoding lacks costs a letter, not the row.
            text = io.TextIOWrapper(binary, encoding, errors="replace", newline="")
            told = (lambda: on_bytes(raw.tell(), size)) if on_bytes else None
            yield Rows(path, text, replace(layout, encoding=encoding), told=told)
    except (OSError, EOFError, zlib.error, UnicodeError, LookupError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise StreamError(f"{path}: cannot be read: {what}") from error


@contextmanager
def _unzipped(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    head = raw.read(16)
    raw.seek(0)
    if not head:
        raise StreamError(f"{raw.name}: is empty")
    if head[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=raw) as binary:
            yield binary  # type: ignore[misc]  # as good a binary file as any
        return
    for magic, what in _NOT_CSV:
        if head.startswith(magic):
            raise StreamError(f"{raw.name}: is no CSV but {what}")
    yield raw


def _encoding_of(path: Path) -> str:
    """Return the encoding by its mark, else UTF-8 unless it cannot be, else Windows-1252.

    A file counts as UTF-8 while its letters beyond ASCII that are valid outnumber what is not:
    a few broken bytes do not turn all of it into Windows-1252.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    bad = good = 0
    with path.open("rb") as raw, _unzipped(raw) as binary:
        head = binary.read(_CHUNK)
        for mark, name in _BOMS:
            if head.startswith(mark):
                return name
        if (guessed := _utf_16_without_mark(head[:4_096])) is not None:
            return guessed
        for chunk in itertools.chain([head], iter(lambda: binary.read(_CHUNK), b"")):
            text = decoder.decode(chunk)
            if not text.isascii():
                broken = text.count("\ufffd")
                bad += broken
                good += len(text) - len(text.encode("ascii", "ignore")) - broken
    return "utf-8" if good >= bad else "cp1252"


def _utf_16_without_mark(head: bytes) -> str | None:
    """Text in mostly ASCII letters has a zero in every other byte."""
    half = len(head) // 2
    if half and head[1::2].count(0) > 0.8 * half:
        return "utf-16-le"
    if half and head[0::2].count(0) > 0.8 * half:
        return "utf-16-be"
    return None


class Rows:
    """The records of an open file; `header` first, then iterate."""

    def __init__(
        self, path: Path, text: TextIO, layout: Layout, *, told: Callable[[], None] | None = None
    ) -> None:
        self.path = path
        self.encoding = layout.encoding or "utf-8"
        self.delimiter = layout.delimiter
        self._quote = layout.quote
        self._text = text
        self._told = told
        self._line = 0
        self._pending: list[str] = []  # the physical lines of the record that is being read

    def header(self, needed: Iterable[str] = ()) -> list[str]:
        """Read the names of the columns; the delimiter is one by which all `needed` are there.

        Raises:
            StreamError: there is none.
        """
        lines = self._raw_lines()
        line = next((each for each in lines if each.strip("\r\n\t ,;|")), "")
        if found := _SEP_LINE.fullmatch(line):  # a hint to Excel
            self.delimiter = self.delimiter or found[1]
            line = next(lines, "")
        if not line:
            raise StreamError(f"{self.path}: is empty")
        self._pending.clear()
        choices = [self.delimiter] if self.delimiter else list(DELIMITERS)
        headers = {delimiter: self._names(line, delimiter) for delimiter in choices}
        wanted = set(needed)
        self.delimiter = max(
            choices, key=lambda each: (wanted <= set(headers[each]), len(headers[each]))
        )
        return headers[self.delimiter]

    def _names(self, line: str, delimiter: str) -> list[str]:
        return [name.strip() for name in self._fields(line, delimiter) or [line]]

    def __iter__(self) -> Iterator[Record]:
        """Yield each record. A quote that is never closed costs its own rows, at most."""
        reader = self._reader(self._lines())
        for number in itertools.count(1):
            first = self._line + 1
            try:
                fields = next(reader, None)
            except csv.Error:
                fields = []
            if fields is None:
                return
            lines = tuple(self._pending)
            self._pending.clear()
            if self._told and number % _PROGRESS_ROWS == 0:
                self._told()
            if not fields and lines and any(line.strip() for line in lines):
                reader = self._reader(self._lines())
                yield Record(first, fields, lines, whole=False)
            elif fields:
                yield Record(first, self._restored(fields), lines if len(lines) > 1 else ())

    def one_by_one(self, record: Record) -> Iterator[Record]:
        """Yield each physical line of `record` as a row of its own."""
        for number, line in enumerate(record.lines):
            if line.strip():
                fields = self._fields(line, self.delimiter or ",")
                yield Record(record.line + number, fields or [], whole=fields is not None)

    def _fields(self, line: str, delimiter: str) -> list[str] | None:
        """Return the fields of one line; None: it has none that csv can read."""
        self.delimiter, before = delimiter, self.delimiter
        try:
            return self._restored(next(self._reader([self._prepared(line)]), []))
        except csv.Error:
            return None
        finally:
            self.delimiter = before

    def _reader(self, lines: Iterable[str]) -> "Iterator[list[str]]":
        delimiter = self.delimiter or ","
        return csv.reader(
            lines,
            delimiter=delimiter if len(delimiter) == 1 else _UNIT_SEPARATOR,
            quotechar=self._quote or None,
            quoting=csv.QUOTE_MINIMAL if self._quote else csv.QUOTE_NONE,
        )

    def _lines(self) -> Iterator[str]:
        return map(self._prepared, self._raw_lines())

    def _raw_lines(self) -> Iterator[str]:
        while line := self._text.readline(LINE_MOST):
            self._line += 1
            if len(line) == LINE_MOST:
                raise StreamError(
                    f"{self.path}: line {self._line} is longer than {LINE_MOST:,} characters: "
                    "this is no CSV"
                )
            self._pending.append(line)
            yield line

    def _prepared(self, line: str) -> str:
        if self.delimiter is None or len(self.delimiter) == 1:
            return line
        return line.replace(_UNIT_SEPARATOR, " ").replace(self.delimiter, _UNIT_SEPARATOR)

    def _restored(self, fields: list[str]) -> list[str]:
        if self.delimiter is None or len(self.delimiter) == 1:
            return fields
        return [field.replace(_UNIT_SEPARATOR, self.delimiter) for field in fields]


def positions(path: Path, header: list[str], needed: Mapping[str, str]) -> dict[str, int]:
    """Return where each needed column stands; `needed` says by name what it is needed for.

    Raises:
        StreamError: one is missing, or stands twice.
    """
    if missing := sorted(needed.keys() - set(header)):
        told = "".join(f"; {_near(name, header)}" for name in missing if _near(name, header))
        raise StreamError(
            f"{path}: the mapping needs the columns {', '.join(missing)}; "
            f"the file has {', '.join(header)[:1_000] or 'no header'}{told}"
        )
    found = {name: [at for at, each in enumerate(header) if each == name] for name in needed}
    if twice := {name: places for name, places in found.items() if len(places) > 1}:
        told = "; ".join(
            f"{shown(name)} ({needed[name]}) stands in the columns {', '.join(str(at + 1) for at in places)}"
            for name, places in twice.items()
        )
        raise StreamError(f"{path}: which column is meant? {told}: rename all but one of them")
    return {name: places[0] for name, places in found.items()}


def _near(name: str, header: list[str]) -> str:
    close = get_close_matches(name.casefold(), [each.casefold() for each in header], 1)
    near = next((each for each in header if close and each.casefold() == close[0]), None)
    return f"did you mean {shown(near)} by {shown(name)}?" if near else ""
