"""The microservices, one file each, named here once; none imports another."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line names services without loading what runs them
    from broker.runtime.service import Service

ALL = ("intake", "presence", "alerting", "groups", "police", "city", "deadlines")


def load(name: str) -> "Service":
    """Return the service of that name.

    Raises:
        ModuleNotFoundError: there is none.
    """
    service: Service = importlib.import_module(f"services.{name}").service
    return service
