"""The microservices, one file each, named here once; none imports another."""

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

from broker.core.changes import Routes
from schemas import topics
from schemas.topics import Topic

if TYPE_CHECKING:  # the command line names services without loading what runs them
    from broker.runtime.service import Service

ALL = ("intake", "presence", "alerting", "groups", "police", "city", "relay", "deadlines")

# Topics of an older release's services that others have now: a rolling upgrade loses nothing.
_HAD: dict[str, tuple[Topic[Any], ...]] = {
    "police": (topics.DESK_DELIVERED, topics.DESK_SYNC, topics.DELIVERED),
    "city": (topics.CITY_DELIVERED, topics.CITY_SYNC),
}


@cache
def load(name: str) -> "Service":
    """Return the service of that name.

    Raises:
        ModuleNotFoundError: there is none.
    """
    service: Service = importlib.import_module(f"services.{name}").service
    for topic in _HAD.get(name, ()):
        service.hand_over(topic, load(topic.service))
    return service


@cache
def routes() -> Routes:
    """Return which services read which events, as they say: for the store that services write."""
    return Routes({name: load(name).interests for name in ALL})
