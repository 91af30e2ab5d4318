"""Places around the Korenmarkt, participants who move among them, and how they are filed."""

import redis

from broker.core.grid import cover, place_of
from broker.store import Hit, Store, Update
from schemas.messages import Availability
from tests.core.samples import KORENMARKT, north

PRESENCE_S = 900

AROUND = cover(KORENMARKT.lat, KORENMARKT.lon, 4_000)

PLACES = [
    place_of(north(y, x).lat, north(y, x).lon)
    for y in range(-1_500, 1_501, 300)
    for x in (-600, 0, 600)
]

ON, MUTED = Availability.AVAILABLE, Availability.MUTED


def assert_one_place_each(client: redis.Redis) -> None:
    """No ghosts: a user is filed under one cell, and where: agrees."""
    found: dict[str, list[str]] = {}
    for key in client.scan_iter("nabij:{p0}:at:*"):
        for user in client.hkeys(key):
            found.setdefault(str(user), []).append(key.rpartition(":")[2])
    where = {
        user: entry.split()[0]
        for key in client.scan_iter("nabij:{p0}:where:*")
        for user, entry in client.hgetall(key).items()
    }
    assert {user: [cell] for user, cell in where.items() if cell != "-"} == found


async def moved(
    store: Store, user: str, place: int | None, at_ms: int, *, now_ms: int = 0
) -> list[Hit]:
    availability = MUTED if place is None else ON
    return await store.presence.update(
        [Update(user, place, availability, at_ms)], now_ms=now_ms or at_ms, presence_s=PRESENCE_S
    )
