"""Cleans texts of people for display: line breaks, control characters, direction marks."""

import re

# Line breaks as phones and PCs paste them. U+2028 and U+2029 are line and paragraph separators.
_LINE_BREAKS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")

# Characters that are not shown, or that reorder what a dispatcher reads (Unicode TR #36, 3.1): C0
# but for tab and newline, DEL, C1; the marks, embeddings, overrides and isolates of direction;
# interlinear annotation; the byte order mark; lone surrogates, which are no characters. Joiners
# (U+200C and U+200D) stay: Persian and emoji need them.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff]"
)

# The same in JSON, as they are or escaped.
_ODD_IN_JSON = re.compile(
    _CONTROLS.pattern
    + r"|[\u2028\u2029]"
    + r"|\\[rbf]|\\u(?:00(?:0[^9aA]|[189]|7[fF])|061[cC]|20(?:0[eEfF]|2[89a-eA-E]|6[6-9a-fA-F])"
    + r"|[fF][eE][fF][fF]|[fF][fF][fF][9abAB]|[dD][89a-fA-F])"
)


def with_plain_line_breaks(text: str) -> str:
    """Return `text` with a line feed for every kind of line break."""
    return _LINE_BREAKS.sub("\n", text)


def without_controls(text: str) -> str:
    """Return `text` without control characters, direction marks and lone surrogates."""
    return _CONTROLS.sub("", text)


def is_odd(json: str) -> bool:
    """Whether the strings of a JSON text may need cleaning.

    False at once for ASCII without escapes, as in most messages.
    """
    if json.isascii() and "\\" not in json and "\x7f" not in json:
        return False
    return _ODD_IN_JSON.search(json) is not None
