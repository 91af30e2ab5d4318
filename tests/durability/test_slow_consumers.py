"""A client that stops reading costs others nothing, and what is dropped for it is sent again."""

import math
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from broker.mqtt import Endpoint
from broker.mqtt.status import ServerStatus
from broker.store import DeliveryState
from nabij.local.embedded import Account, EmbeddedMqtt, EmbeddedRedis, MqttEngine, replace_options
from services import alerting
from tests.services.client import WITHIN_S
from tests.services.system import Servers, moved, polled, running

OTHERS = 500


def _string(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def _packet(kind: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([kind, len(body)]) + body


@contextmanager
def stopped_reading(mqtt: EmbeddedMqtt, account: Account) -> Iterator[None]:
    """A device of MQTT 3.1.1 that subscribes to its topics, and never reads nor acknowledges."""
    name = account.username
    connect = b"\0\4MQTT\4\xc2\0\0" + _string("stuck") + _string(name) + _string(account.password)
    subscribe = b"\0\1" + _string(f"nabij/v1/u/{name}/down/#") + b"\1"
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stuck.settimeout(WITHIN_S)
        stuck.connect((mqtt.host, mqtt.port))
        stuck.sendall(_packet(0x10, connect))
        assert stuck.recv(4) == b"\x20\2\0\0"
        stuck.sendall(_packet(0x82, subscribe))
        assert stuck.recv(5) == b"\x90\3\0\1\1"
        yield


async def test_a_participant_who_stops_reading_does_not_delay_five_hundred_others(
    servers: Servers, accounts: dict[str, Account], record_property: Callable[[str, str], None]
) -> None:
    async with running(servers) as system:
        fleet = await system.connect("nabij", "u/+/down/#")
        place = system.place()
        others = [f"u-{number}" for number in range(OTHERS)]
        for user in ("bob", *others):
            await system.be_at(fleet, moved(place, north_m=50), user=user)

        async def alerted_within_s(category: str) -> float:
            started = time.monotonic()
            incident = (await system.report(fleet, place, category, user="witness"))["incident"]
            await fleet.expect("u/u-", incident=incident, count=OTHERS)
            return time.monotonic() - started

        before_s = await alerted_within_s("fight")
        with stopped_reading(servers.mqtt, accounts["bob"]):
            for _ in range(400):  # 6 MB: more than the kernel takes for a socket that nobody reads
                await fleet.publish("u/bob/down/group", b"x" * 16_000)
            # Who waits for bob waits each time, and for ever; other work delays one at most.
            with_stuck_s = math.inf
            for category in ("fire", "medical", "robbery"):
                if with_stuck_s >= (most_s := 3 * before_s + 3.0):
                    with_stuck_s = await alerted_within_s(category)

        record_property("last_alert_s", f"{before_s:.3f}, with a stuck reader {with_stuck_s:.3f}")
        assert with_stuck_s < most_s


class ShortQueues(EmbeddedMqtt):
    """The shipped Mosquitto, but that it drops what goes beyond a few messages a client."""

    def _command(self) -> list[str]:
        command = super()._command()
        config = Path(command[-1])
        short = {"max_inflight_messages": "20", "max_queued_messages": "5", "sys_interval": "1"}
        config.write_text(replace_options(config.read_text(), short))
        return command


@pytest.fixture
async def dropping(
    data_dir: Path,
    accounts: dict[str, Account],
    own_redis: EmbeddedRedis,
    program: Callable[..., str],
) -> AsyncIterator[Servers]:
    program("mosquitto")
    some = list(accounts.values())
    async with ShortQueues(data_dir, some, engine=MqttEngine.MOSQUITTO) as mqtt:
        yield Servers(mqtt=mqtt, redis_url=own_redis.url, accounts=accounts, directory=data_dir)


async def test_an_alert_that_the_mqtt_broker_dropped_is_sent_again_under_the_same_id(
    dropping: Servers, accounts: dict[str, Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = dropping.mqtt.url_for(accounts["nabij"])
    monkeypatch.setenv("NABIJ_MQTT_URL", url)  # as every worker has it
    monkeypatch.setenv("NABIJ_SHARE_GROUP", "secret")
    async with running(dropping) as system:
        ann = await system.connect("ann")
        operator = await system.connect("nabij", "ops/nothing")
        place = system.place()
        with stopped_reading(dropping.mqtt, accounts["bob"]):
            bob = await system.connect("bob", "u/bob/down/receipt")
            await system.be_at(bob, place)
            for _ in range(30):
                await operator.publish("u/bob/down/group", b"{}")
            incident = (await system.report(ann, place))["incident"]

            async def sent() -> bool:
                alerts = await system.store.alerts.of(UUID(incident))
                return [one.state for one in alerts] == [DeliveryState.SENT]

            await polled(sent)  # so says Mosquitto, who has dropped it
        back = await system.connect("bob")

        await back.expect("u/bob/down/alert", incident=incident)

        status = ServerStatus(Endpoint.from_url(url))

        async def is_recorded() -> bool:
            (one,) = await system.store.alerts.of(UUID(incident))
            known = await system.store.mqtt_outages.dropped()
            return one.tries >= 1 and known == (await status.told()).dropped

        await polled(is_recorded)


async def test_an_alert_that_a_killed_mqtt_broker_has_forgotten_is_sent_again_unasked(
    dropping: Servers, accounts: dict[str, Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NABIJ_MQTT_URL", dropping.mqtt.url_for(accounts["nabij"]))
    monkeypatch.setenv("NABIJ_SHARE_GROUP", "secret")
    monkeypatch.setattr(alerting, "_UPTIME_OFF_MS", 2_500)  # it tells its uptime each second here
    async with running(dropping) as system:
        ann = await system.connect("ann")
        another = await system.connect("nabij", "u/bob/down/#")  # for it Mosquitto says success
        await system.be_at(another, place := system.place(), user="bob")

        async def is_known() -> bool:  # and long enough ago to tell the next start from it
            return 0 < await system.store.mqtt_outages.started_ms() < time.time() * 1000 - 4_000

        await polled(is_known)
        incident = (await system.report(ann, place))["incident"]
        await another.expect("u/bob/down/alert", incident=incident)
        await dropping.mqtt.kill()
        await dropping.mqtt.restart()
        bob = await system.connect("bob")  # a device that asks for nothing

        await bob.expect("u/bob/down/alert", incident=incident)


async def test_an_mqtt_broker_that_does_not_say_so_has_no_such_count(
    mqtt_server: EmbeddedMqtt, accounts: dict[str, Account]
) -> None:
    status = ServerStatus(Endpoint.from_url(mqtt_server.url_for(accounts["ann"])))
    said = await status.told()
    assert said == (None, None)
