"""paho-mqtt's callbacks and redis-py."""

import json
from typing import Any
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
import redis
from paho.mqtt.enums import CallbackAPIVersion

from bench import peer_protocol

_ALERT_TEXT = "x" * 550  # an alert of ours has some 700 bytes


def main(mqtt_url: str, redis_url: str) -> None:
    """Serve until the process is ended."""
    url = urlsplit(mqtt_url)
    store = redis.from_url(redis_url, decode_responses=True)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.username_pw_set(unquote(url.username or ""), unquote(url.password or ""))
    client.max_inflight_messages_set(1_000)

    def on_connect(*_: Any) -> None:
        client.subscribe(peer_protocol.REPORT, qos=1)

    def on_subscribe(*_: Any) -> None:
        print(peer_protocol.READY, flush=True)

    def on_message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        report = json.loads(message.payload)
        ids = {name: report[name] for name in ("id", "incident", "report")}
        client.publish(peer_protocol.RECEIPT, json.dumps(ids), qos=1)
        client.publish(peer_protocol.POLICE, json.dumps(report), qos=1)
        near = store.geosearch(
            peer_protocol.PEOPLE,
            longitude=report["lon"],
            latitude=report["lat"],
            radius=peer_protocol.RADIUS_M,
            unit="m",
        )
        alert = json.dumps({**ids, "text": _ALERT_TEXT}, separators=(",", ":"))
        for user in near:
            client.publish(peer_protocol.alert_topic(str(user)), alert, qos=1)

    client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
    client.connect(url.hostname or "", url.port or 1883)
    client.loop_forever()


if __name__ == "__main__":
    main(*peer_protocol.urls())
