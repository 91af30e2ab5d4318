"""What is too large, and whose name is none: every client gets an answer that its protocol has."""

import asyncio
import json
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import paho.mqtt.client as mqtt
import pytest
import structlog
from paho.mqtt.enums import CallbackAPIVersion

from broker.runtime import metrics
from broker.store import DeliveryState, Partitions
from devices.participant import Broker, Confirm, DeviceOptions, Listeners, Participant
from nabij.local.embedded import find_program
from schemas.messages import Brief, Form, Position
from schemas.topics import ALERT, REPORT
from tests.services.bad_input import GOOD, padded
from tests.services.client import WITHIN_S, Connect, connecting
from tests.services.system import Servers, System, a_report, ago, polled

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOO_LARGE = 100_000  # for the services, not for the MQTT broker
FAR_TOO_LARGE = 250_000  # for the MQTT broker
UP, DOWN = "nabij/v1/u/eva/up/report", "nabij/v1/u/eva/down/receipt"


class Paho:
    """A device on paho's own thread: what it was told, in order."""

    def __init__(self, servers: Servers, version: int) -> None:
        self.receipts: list[dict[str, Any]] = []
        self.disconnects: list[str] = []
        self.largest: int | None = None  # packet, as told by CONNACK
        self.subscribed = 0  # how often: what is published before has no receipt to hear
        self._told = threading.Condition()
        self.mqtt = mqtt.Client(
            CallbackAPIVersion.VERSION2, f"eva-paho-{version}", protocol=version
        )
        self.mqtt.username_pw_set("eva", servers.accounts["eva"].password)
        self.mqtt.reconnect_delay_set(1, 1)
        self.mqtt.on_message = self._take
        self.mqtt.on_disconnect = self._lose
        self.mqtt.on_connect = self._greet
        self.mqtt.on_subscribe = self._hear
        self.mqtt.connect(servers.mqtt.host, servers.mqtt.port)
        self.mqtt.loop_start()

    def _greet(self, client: mqtt.Client, *told: Any) -> None:
        self.largest = getattr(told[3], "MaximumPacketSize", None)
        client.subscribe(DOWN, qos=1)

    def _hear(self, *_: Any) -> None:
        self.subscribed += 1
        self._tell()

    def _take(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self.receipts.append(json.loads(message.payload))
        self._tell()

    def _lose(self, *told: Any) -> None:
        self.disconnects.append(str(told[3]))
        self._tell()

    def _tell(self) -> None:
        with self._told:
            self._told.notify_all()

    async def until(self, met: Callable[[], object]) -> None:
        def wait() -> bool:
            with self._told:
                return bool(self._told.wait_for(lambda: bool(met()), WITHIN_S))

        assert await asyncio.to_thread(wait)


@pytest.mark.parametrize("version", [mqtt.MQTTv311, mqtt.MQTTv5])
async def test_too_large_a_report_gets_its_receipt_and_keeps_the_connection(
    version: int, servers: Servers, system: System
) -> None:
    device = Paho(servers, version)
    try:
        await device.until(lambda: device.subscribed)
        device.mqtt.publish(UP, padded(REPORT, TOO_LARGE), qos=1)
        await device.until(lambda: device.receipts)
        receipt = device.receipts[0]
        assert (receipt["code"], receipt["field"]) == ("payload_too_large", "$")
        assert f"{TOO_LARGE} bytes; at most 16384" in receipt["reason"]
        assert "112" in receipt["advice"]
        assert receipt["id"]  # found in its first 16 KiB
        assert not device.disconnects

        device.mqtt.publish(UP, padded(REPORT, FAR_TOO_LARGE), qos=0)
        await device.until(lambda: device.disconnects)
        if version == mqtt.MQTTv5:
            assert device.disconnects[0] == "Packet too large"
            assert device.largest == 196_608
        report = a_report(system.place())
        await device.until(lambda: device.subscribed == 2)
        device.mqtt.publish(UP, json.dumps(report), qos=1)
        await device.until(lambda: any(one.get("id") == report["id"] for one in device.receipts))
    finally:
        device.mqtt.disconnect()
        device.mqtt.loop_stop()


async def test_too_large_a_report_of_aiomqtt_gets_its_receipt(connect: Connect) -> None:
    eva = await connect("eva")
    receipt = (await eva.ask("u/eva/up/report", padded(REPORT, TOO_LARGE))).payload
    assert receipt["code"] == "payload_too_large"
    assert (await eva.ask("u/eva/up/sync", {"since": "1970-01-01T00:00:00Z"})).payload["outcome"]


@pytest.mark.parametrize("version", ["5", "311"])
async def test_too_large_a_report_of_mosquitto_pub_gets_its_receipt(
    version: str, servers: Servers, connect: Connect
) -> None:
    program = find_program("mosquitto_pub")
    if program is None:
        pytest.skip("needs mosquitto_pub on the PATH")
    eva = await connect("eva")
    address = ["-h", servers.mqtt.host, "-p", str(servers.mqtt.port), "-V", version, "-q", "1"]
    account = ["-u", "eva", "-P", servers.accounts["eva"].password, "-t", UP, "-s"]
    payload = padded(REPORT, TOO_LARGE)
    sent = await asyncio.to_thread(
        subprocess.run,
        [program, *address, *account],
        input=payload,
        capture_output=True,
        check=False,
    )
    assert (sent.returncode, sent.stderr) == (0, b"")
    await eva.expect("u/eva/down/receipt", code="payload_too_large")


async def test_an_account_whose_name_is_none_is_told_counted_and_logged_without_its_name(
    connect: Connect,
) -> None:
    watcher = await connect("nabij", "u/+/down/receipt", "ops/rejected/#")
    before = metrics.BAD_NAMES.labels("intake")._value.get()

    with structlog.testing.capture_logs() as logs:
        await watcher.publish("u/Ann.B/up/report", GOOD[REPORT](), correlation=b"7")
        receipt = await watcher.expect("u/Ann.B/down/receipt", code="bad_topic")
        await watcher.expect("ops/rejected/intake", code="bad_topic")

    assert "1 to 40 characters of a-z, 0-9 and -" in receipt["reason"]
    assert "112" in receipt["advice"]
    assert metrics.BAD_NAMES.labels("intake")._value.get() == before + 1
    told = [one for one in logs if one["log_level"] == "warning"]
    assert [one["topic"] for one in told] == ["u/Aaa.A/up/report"]
    assert "Ann" not in str(logs)


async def test_a_small_device_is_alerted_in_less_than_256_bytes_wherever_it_was(
    connect: Connect, servers: Servers, system: System
) -> None:
    phone, eva = await connect("bob"), await connect("eva")
    async with connecting(servers.mqtt, servers.accounts) as also:
        button = await also("bob", "u/bob/down/brief", "u/bob/down/receipt")
        place = system.place()
        await system.be_at(button, place, form="short")
        incident = (await system.report(eva, place, text="x" * 2_000))["incident"]

        brief = await button.expect("u/bob/down/brief", incident=incident)
        alert = await phone.expect("u/bob/down/alert", incident=incident)
        assert brief["id"] == alert["id"]
        assert (brief["category"], brief["call"]) == ("fight", "112")
        assert all(len(one.raw) < 256 for one in button.messages("u/bob/down/brief"))

        await button.ask("u/bob/up/sync", {"since": ago(minutes=1)})
        assert len(button.on("u/bob/down/brief", incident=incident)) == 2
        await system.be_at(phone, place)  # without a form: as it was
        await system.be_at(phone, system.place())
        second = system.place()
        other = (await system.report(eva, second))["incident"]
        await system.be_at(phone, second)  # walks in
        await button.expect("u/bob/down/brief", incident=other)

        third = system.place()
        await system.be_at(phone, third, form="full")
        last = (await system.report(eva, third))["incident"]
        await phone.expect("u/bob/down/alert", incident=last)
        await button.ask("u/bob/up/sync", {"since": ago(minutes=1)})
        assert not button.on("u/bob/down/brief", incident=last)


async def test_a_small_device_is_alerted_in_short_as_soon_as_its_first_place_is_known(
    connect: Connect, servers: Servers, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone, eva = await connect("bob"), await connect("eva")
    placed, alerted = asyncio.Event(), asyncio.Event()
    update = Partitions.update

    async def and_wait(*arguments: Any, **named: Any) -> Any:
        hits = await update(*arguments, **named)
        placed.set()
        await alerted.wait()
        return hits

    async with connecting(servers.mqtt, servers.accounts) as also:
        button = await also("bob", "u/bob/down/brief", "u/bob/down/receipt")
        place = system.place()
        monkeypatch.setattr(Partitions, "update", and_wait)
        saying = asyncio.create_task(system.be_at(button, place, form="short"))
        async with asyncio.timeout(WITHIN_S):
            await placed.wait()
        incident = (await system.report(eva, place))["incident"]
        await phone.expect("u/bob/down/alert", incident=incident)
        alerted.set()
        await saying

        await button.expect("u/bob/down/brief", incident=incident)
        await system.be_at(button, None, availability="away", form="full")


async def test_a_participant_asks_for_alerts_in_short_and_for_no_more_of_them(
    connect: Connect, servers: Servers, system: System
) -> None:
    eva, phone = await connect("eva"), await connect("bob")
    began, first, second = datetime.now(UTC), system.place(), system.place()
    came: asyncio.Queue[Brief] = asyncio.Queue()
    async with Participant(
        "bob",
        servers.accounts["bob"].password,
        Broker(servers.mqtt.host, servers.mqtt.port),
        deaf_to=(ALERT,),
        listeners=Listeners(on_brief=lambda brief, _: came.put_nowait(brief)),
        options=DeviceOptions(session_expiry_s=0),
    ) as bob:
        here = Position(lat=first[0], lon=first[1])
        await bob.presence(here, form=Form.SHORT, confirm=Confirm.YES)
        incident = (await system.report(eva, first))["incident"]
        async with asyncio.timeout(WITHIN_S):
            brief = await came.get()
        alert = await phone.expect("u/bob/down/alert", incident=incident)
        assert (str(brief.id), str(brief.incident)) == (alert["id"], incident)
        assert (bob.briefs, bob.alerts) == ({brief.id: brief}, {})

        await bob.sync(began)
        assert bob.repeats == {brief.id: 1}

        there = Position(lat=second[0], lon=second[1])
        await bob.presence(there, form=Form.FULL, confirm=Confirm.YES)
        other = (await system.report(eva, second))["incident"]
        await phone.expect("u/bob/down/alert", incident=other)
        await bob.sync(began)
        assert set(bob.briefs) == {brief.id}


async def test_an_alert_counts_as_sent_when_only_a_small_device_hears_it(
    connect: Connect, servers: Servers, system: System
) -> None:
    eva = await connect("eva")
    async with connecting(servers.mqtt, servers.accounts) as also:
        button = await also("bob", "u/bob/down/brief", "u/bob/down/receipt")
        place = system.place()
        await system.be_at(button, place, form="short")
        incident = UUID((await system.report(eva, place))["incident"])
        await button.expect("u/bob/down/brief", incident=str(incident))

        async def is_sent() -> bool:
            record = await system.partitions.of(incident).alerts.of(incident)
            return [(one.user, one.state) for one in record] == [("bob", DeliveryState.SENT)]

        await polled(is_sent)
        await system.be_at(button, None, availability="away", form="full")
