"""A panic button: one report over synchronous paho-mqtt, and what became of it.

NABIJ_DEVICE_PASSWORD=… python -m devices.button --user ann --broker mqtt://host:1883 \
    --lat 51.0543 --lon 3.7217

The exit code is 0 when the report is confirmed, 1 when it was rejected, 2 when it is not confirmed
(or could not even be sent): then call 112. Standard error says why it is not confirmed.
"""

import argparse
import contextlib
import os
import queue
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from devices.await_receipt import why_rejected
from devices.device_connection import Broker, client_id
from devices.reading import read
from schemas import topics
from schemas.codec import encode_within_limit
from schemas.ids import new_id
from schemas.messages import Outcome, Position, Receipt, Report

CONFIRMED, REJECTED, NOT_CONFIRMED = 0, 1, 2
REPEAT_AFTER_S = 2.0


class NotConfirmed(Exception):  # noqa: N818 - read as `except NotConfirmed`
    """No receipt came in time; the text says why."""


# long: all of its MQTT, for a device maker to read in one place
def press(
    report: Report, user: str, password: str | None, broker: Broker, *, timeout_s: float
) -> Receipt:
    """Send `report` until its receipt comes.

    Raises:
        NotConfirmed: none came in time.
    """
    payload = encode_within_limit(report)
    up, down = topics.REPORT.topic(user=user), topics.RECEIPT.topic(user=user)
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ResponseTopic, properties.CorrelationData = down, report.id.bytes
    receipts: queue.SimpleQueue[Receipt] = queue.SimpleQueue()
    answers: list[ReasonCode] = []  # of CONNACK and PUBACK

    def subscribe(client: mqtt.Client, *answer: Any) -> None:
        answers.append(answer[2])
        client.subscribe(down, qos=1)

    def send(client: mqtt.Client, *_: object) -> None:
        client.publish(up, payload, qos=1, properties=properties)

    def take(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        receipt = read(topics.RECEIPT, bytes(message.payload))
        correlation = getattr(message.properties, "CorrelationData", None)
        if correlation == report.id.bytes or receipt.id == report.id:
            receipts.put(receipt)

    client = _client(user, password, broker)
    client.on_connect, client.on_message = subscribe, take
    client.on_subscribe = send  # only now can the receipt reach us
    client.on_publish = lambda *answer: answers.append(answer[3])
    client.connect_async(broker.host, broker.port, keepalive=30)
    client.loop_start()
    try:
        give_up_at = time.monotonic() + timeout_s
        while (left_s := give_up_at - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                return receipts.get(timeout=min(left_s, REPEAT_AFTER_S))
            if client.is_connected():
                send(client)
        raise NotConfirmed(_why_not_confirmed(broker, answers))
    finally:
        client.disconnect()
        client.loop_stop()


def _client(user: str, password: str | None, broker: Broker) -> mqtt.Client:
    name = client_id(user, "button", password)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5)
    client.username_pw_set(user, password)
    if broker.tls:
        client.tls_set_context(broker.tls)
    client.reconnect_delay_set(1, 2)
    client.suppress_exceptions = True  # a receipt that cannot be read must not end the thread
    client.on_socket_open = _without_nagle
    return client


def _why_not_confirmed(broker: Broker, answers: list[ReasonCode]) -> str:
    server = f"{broker.host}:{broker.port}"
    if not answers:
        return f"no connection to {server}"
    if answers[-1].is_failure:
        return f"the MQTT broker at {server} refused: {answers[-1]}"
    return f"connected to {server}, but no receipt came"


def _without_nagle(_client: mqtt.Client, _data: object, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # with it 44 ms a round trip


def main(arguments: list[str] | None = None) -> int:
    """Press the button once and say what happened."""
    options = _options().parse_args(arguments)
    try:
        receipt = _press_as(options)
    except (OSError, ValueError) as error:  # no password file, no such place, no such user
        sys.stdout.write(f"Not sent: {error}. Call 112 if it is urgent.\n")
        return NOT_CONFIRMED
    except NotConfirmed as why:
        sys.stderr.write(f"{why}\n")
        sys.stdout.write("Not confirmed. Call 112 if it is urgent.\n")
        return NOT_CONFIRMED
    code, text = _told(receipt)
    sys.stdout.write(f"{text}\n")
    return code


def _press_as(options: argparse.Namespace) -> Receipt:
    password = os.environ.get("NABIJ_DEVICE_PASSWORD")
    if options.password_file:
        password = options.password_file.read_text(encoding="utf-8").strip()
    report = Report(
        id=new_id(),
        category=options.category,
        location=Position(options.lat, options.lon),
        seen_at=datetime.now(UTC),
    )
    return press(report, options.user, password, options.broker, timeout_s=options.timeout)


def _told(receipt: Receipt) -> tuple[int, str]:
    if receipt.outcome is Outcome.REJECTED:
        return REJECTED, f"Rejected: {why_rejected(receipt)} Call 112 if it is urgent."
    return CONFIRMED, f"Confirmed: incident {receipt.incident}. {receipt.advice or ''}".rstrip()


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="devices.button", description="Press a panic button.")
    parser.add_argument("--user", required=True)
    parser.add_argument("--password-file", type=Path, help="else NABIJ_DEVICE_PASSWORD is used")
    parser.add_argument("--broker", type=Broker.from_url, required=True, help="mqtt://host:port")
    parser.add_argument("--lat", type=float, required=True)
    parser.add_argument("--lon", type=float, required=True)
    parser.add_argument("--category", default="threat")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for the receipt")
    return parser


if __name__ == "__main__":
    sys.exit(main())
