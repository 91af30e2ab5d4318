"""Options of a device as plain words, for tests that change one of them."""

from dataclasses import fields
from typing import Any

from devices.device_inbox import Listeners
from devices.participant import DeviceOptions
from devices.police_desk import DeskListeners


def words_of(listeners: type[Listeners | DeskListeners], given: dict[str, Any]) -> dict[str, Any]:
    """Return `given` as what a device takes: its listeners, its options, and the rest as it is."""
    mine = {one.name for one in fields(listeners)}
    how = {one.name for one in fields(DeviceOptions)}
    return {
        "listeners": listeners(**{name: given[name] for name in given.keys() & mine}),
        "options": DeviceOptions(**{name: given[name] for name in given.keys() & how}),
        **{name: given[name] for name in given.keys() - mine - how},
    }
