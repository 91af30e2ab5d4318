"""aiomqtt and redis.asyncio."""

import asyncio
import json
import sys
from urllib.parse import unquote, urlsplit

import aiomqtt
import redis.asyncio

from bench import peer_protocol

_ALERT_TEXT = "x" * 550  # an alert of ours has some 700 bytes


async def main(mqtt_url: str, redis_url: str) -> None:
    """Serve until the process is ended."""
    url = urlsplit(mqtt_url)
    store = redis.asyncio.from_url(redis_url, decode_responses=True)
    async with (
        aiomqtt.Client(
            url.hostname or "",
            url.port or 1883,
            username=unquote(url.username or ""),
            password=unquote(url.password or ""),
            protocol=aiomqtt.ProtocolVersion.V5,
            max_inflight_messages=1_000,
            max_queued_outgoing_messages=0,
        ) as client,
        asyncio.TaskGroup() as tasks,
    ):
        client.pending_calls_threshold = sys.maxsize  # else it warns at each large fan-out
        await client.subscribe(peer_protocol.REPORT, qos=1)
        print(peer_protocol.READY, flush=True)
        async for message in client.messages:
            tasks.create_task(handle(bytes(message.payload), client, store))


async def handle(payload: bytes, client: aiomqtt.Client, store: redis.asyncio.Redis) -> None:
    """Answer, tell the police, alert who is near."""
    report = json.loads(payload)
    ids = {name: report[name] for name in ("id", "incident", "report")}
    await client.publish(peer_protocol.RECEIPT, json.dumps(ids), qos=1)
    await client.publish(peer_protocol.POLICE, json.dumps(report), qos=1)
    near = await store.geosearch(
        peer_protocol.PEOPLE,
        longitude=report["lon"],
        latitude=report["lat"],
        radius=peer_protocol.RADIUS_M,
        unit="m",
    )
    alert = json.dumps({**ids, "text": _ALERT_TEXT}, separators=(",", ":"))
    await asyncio.gather(
        *(client.publish(peer_protocol.alert_topic(str(user)), alert, qos=1) for user in near)
    )


if __name__ == "__main__":
    asyncio.run(main(*peer_protocol.urls()))
