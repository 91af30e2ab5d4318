"""MessagePack as Lua's reader in Redis has it: strings are any bytes, and there are no binaries."""

import struct
from typing import Any

_FLOAT = 0xCB
_INTEGERS = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}
_ARRAYS = {0xDC: ">H", 0xDD: ">I"}
_STRINGS = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}


def unpacked(data: bytes) -> Any:
    """Return what `data` says: lists, floats, positive integers, and strings as bytes."""
    value, end = _read(data, 0)
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes too many")
    return value


def _read(data: bytes, at: int) -> tuple[Any, int]:
    kind = data[at]
    if kind < 0x80:
        return kind, at + 1
    if kind in _INTEGERS:
        return _size(data, at, 0, _INTEGERS)
    if kind == _FLOAT:
        return struct.unpack_from(">d", data, at + 1)[0], at + 9
    if kind & 0xF0 == 0x90 or kind in _ARRAYS:
        size, at = _size(data, at, kind & 0x0F, _ARRAYS)
        items = []
        for _ in range(size):
            item, at = _read(data, at)
            items.append(item)
        return items, at
    if kind & 0xE0 == 0xA0 or kind in _STRINGS:
        size, at = _size(data, at, kind & 0x1F, _STRINGS)
        return data[at : at + size], at + size
    raise ValueError(f"a kind that Lua's reader does not know, or we do not write: {kind:#x}")


def _size(data: bytes, at: int, small: int, formats: dict[int, str]) -> tuple[int, int]:
    if data[at] not in formats:
        return small, at + 1
    form = formats[data[at]]
    return struct.unpack_from(form, data, at + 1)[0], at + 1 + struct.calcsize(form)
