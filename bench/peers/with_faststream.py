"""FastStream's MQTT and redis.asyncio."""

import asyncio
import json
from typing import Any
from urllib.parse import unquote, urlsplit

import redis.asyncio
from faststream.mqtt import MQTTBroker, QoS
from faststream.security import SASLPlaintext

from bench import peer_protocol

_ALERT_TEXT = "x" * 550  # an alert of ours has some 700 bytes


async def main(mqtt_url: str, redis_url: str) -> None:
    """Serve until the process is ended."""
    url = urlsplit(mqtt_url)
    store = redis.asyncio.from_url(redis_url, decode_responses=True)
    broker = MQTTBroker(
        host=url.hostname or "",
        port=url.port or 1883,
        logger=None,
        security=SASLPlaintext(unquote(url.username or ""), unquote(url.password or "")),
    )

    async def handle(report: dict[str, Any]) -> None:
        ids = {name: report[name] for name in ("id", "incident", "report")}
        await broker.publish(ids, peer_protocol.RECEIPT, qos=QoS.AT_LEAST_ONCE)
        await broker.publish(report, peer_protocol.POLICE, qos=QoS.AT_LEAST_ONCE)
        near = await store.geosearch(
            peer_protocol.PEOPLE,
            longitude=report["lon"],
            latitude=report["lat"],
            radius=peer_protocol.RADIUS_M,
            unit="m",
        )
        alert = json.dumps({**ids, "text": _ALERT_TEXT}, separators=(",", ":"))
        await asyncio.gather(
            *(
                broker.publish(alert, peer_protocol.alert_topic(str(user)), qos=QoS.AT_LEAST_ONCE)
                for user in near
            )
        )

    # Called, not a decorator: where FastStream is not installed, it would be an untyped one.
    broker.subscriber(peer_protocol.REPORT, qos=QoS.AT_LEAST_ONCE, max_workers=100)(handle)
    async with broker:
        await broker.start()
        print(peer_protocol.READY, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*peer_protocol.urls()))
