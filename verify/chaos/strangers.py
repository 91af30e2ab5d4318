"""Participants who subscribe to everything: Mosquitto grants it, and delivers nothing of it.

While they are connected it says of every message that there is a reader. So a system that believes
a PUBACK loses what its own desks did not get, and the judge sees it. Our own MQTT broker refuses
them.
"""

import contextlib
from collections.abc import AsyncIterator

from broker.mqtt import Connection, ConnectionOptions, ConnectRefused, Endpoint
from verify.chaos.chaos_world import ChaosWorld

_STRANGERS = 2


@contextlib.asynccontextmanager
async def strangers(world: ChaosWorld) -> AsyncIterator[None]:
    """Have them connected while the context lasts, where the MQTT broker lets them subscribe."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(_STRANGERS):
            account = world.accounts[world.users[number]]
            connection = Connection(
                Endpoint.from_url(world.mqtt.url_for(account)),
                client_id=f"stranger-{number}",
                subscriptions=["#", "nabij/v1/police/#", "nabij/v1/city/#"],
                options=ConnectionOptions(session_expiry_s=0),
            )
            with contextlib.suppress(ConnectRefused):
                await stack.enter_async_context(connection)
        yield
