"""The microservices, one file each, named here once; none imports another."""

import importlib
from functools import cache
from typing import TYPE_CHECKING

from broker.core.changes import Routes

if TYPE_CHECKING:  # the command line names services without loading what runs them
    from broker.runtime.service import Service

ALL = ("intake", "presence", "alerting", "groups", "police", "city", "relay", "deadlines")


def load(name: str) -> "Service":
    """Return the service of that name.

    Raises:
        ModuleNotFoundError: there is none.
    """
    service: Service = importlib.import_module(f"services.{name}").service
    return service


@cache
def routes() -> Routes:
    """Return which services read which events, as they say: for the store that services write."""
    return Routes({name: load(name).interests for name in ALL})
