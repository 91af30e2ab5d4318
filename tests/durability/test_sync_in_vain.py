"""A question that nobody waits for any more costs nothing; else devices that ask again pile up."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.store.sync_rows import SyncStore
from tests.services.client import Client
from tests.services.system import Servers, running

SLOW_S = 1.5


async def test_an_expired_sync_is_not_answered_and_one_that_a_device_awaits_is(
    own_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    since, read = SyncStore.since, 0

    async def slow(self: SyncStore, *words: Any, **named: Any) -> Any:
        nonlocal read
        read += 1
        await asyncio.sleep(SLOW_S)
        return await since(self, *words, **named)

    monkeypatch.setattr(SyncStore, "since", slow)
    async with running(own_servers) as system:
        ann = await system.connect("ann", "u/ann/down/receipt")

        await _sync(ann, b"first")
        await _sync(ann, b"in vain", expiry_s=1)  # behind the first, for longer than that
        await _sync(ann, b"awaited", expiry_s=60)
        await ann.answer_to(b"awaited")

        assert [one.correlation for one in ann.messages("u/ann/down/receipt")] == [
            b"first",
            b"awaited",
        ]
        assert read == 2


async def _sync(client: Client, correlation: bytes, **settings: Any) -> None:
    question = {"since": datetime.now(UTC).isoformat()}
    await client.publish("u/ann/up/sync", question, correlation=correlation, **settings)
