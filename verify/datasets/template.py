"""Texts with columns filled in: `{date} {hour:02}:{minute:02}`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_PADDED = re.compile(r"(.*):0(\d)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Field:
    """A column, padded with zeros on the left to `width` characters."""

    column: str
    width: int = 0


@dataclass(frozen=True, slots=True)
class Template:
    """Literal texts and columns by turns. `{{` and `}}` stand for the braces themselves.

    A column whose own name ends so is written `{its:02:00}` (see `field`). Nothing but `{column}`
    and `{column:02}` is understood: a column may have any name, and no text reaches into Python's
    objects as those of `str.format` do.
    """

    parts: tuple[str | Field, ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Read a template.

        Raises:
            ValueError: a brace stands alone, or a field has no name.
        """
        parts: list[str | Field] = []
        end = 0
        for found in _PART.finditer(text):
            if found.start() > end:
                parts.append(text[end : found.start()])
            end = found.end()
            if found[0] in ("{{", "}}"):
                parts.append(found[0][0])
            elif found[1] is None:
                raise ValueError(
                    f"a lone {found[0]} at character {found.start() + 1}: "
                    f"write {{column}}, or {found[0] * 2} for the brace itself"
                )
            else:
                parts.append(_field(found[1], found.start()))
        if end < len(text):
            parts.append(text[end:])
        return cls(tuple(parts))

    @classmethod
    def of_columns(cls, columns: tuple[str, ...]) -> "Template":
        """Return the columns' values with a space between them."""
        spaced: list[str | Field] = []
        for column in columns:
            spaced += [" ", Field(column)]
        return cls(tuple(spaced[1:]))

    @staticmethod
    def field(column: str) -> str:
        """Return a template of that column alone, whatever its name (but for braces in it)."""
        return f"{{{column}:00}}" if _PADDED.fullmatch(column) else f"{{{column}}}"

    @property
    def columns(self) -> set[str]:
        """The columns that are filled in."""
        return {part.column for part in self.parts if isinstance(part, Field)}

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the text for one row."""
        return "".join(
            part
            if isinstance(part, str)
            else values[part.column].strip().rjust(part.width, "0" if values[part.column] else " ")
            for part in self.parts
        )


def _field(text: str, at: int) -> Field:
    padded = _PADDED.fullmatch(text)
    field = Field(padded[1], int(padded[2])) if padded else Field(text)
    if not field.column.strip():
        raise ValueError(f"{{}} at character {at + 1} names no column")
    return field
