"""Values do not change: every Struct of the pure rooms is frozen (and so may be a key, or shared)."""

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import msgspec
import pytest

import broker.core
import broker.mqtt
import schemas

ROOMS = (schemas, broker.core, broker.mqtt)


def _below(kind: type) -> Iterator[type]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)


def structs_of(room: str) -> list[type[msgspec.Struct]]:
    return [one for one in _below(msgspec.Struct) if one.__module__.startswith(f"{room}.")]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_every_struct_is_frozen(room: ModuleType) -> None:
    for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
        importlib.import_module(module.name)
    found = structs_of(room.__name__)
    assert len(found) > 3
    assert [one.__qualname__ for one in found if not one.__struct_config__.frozen] == []
