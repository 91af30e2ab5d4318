"""A store on the run's Redis, and a plain client to look at what it leaves there."""

from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from broker.store import Store
from services import routes


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    async with Store(redis_url, routes=routes()) as connected:
        await connected.events.ensure_groups()
        yield connected


@pytest.fixture
async def other_store(redis_url: str) -> AsyncIterator[Store]:
    """The store of another worker, with a connection of its own."""
    async with Store(redis_url, routes=routes()) as connected:
        yield connected


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as connected:
        yield connected
