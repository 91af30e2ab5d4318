"""The embedded MQTT broker: who gets in, who reads what, and what becomes of it."""

import asyncio
import queue
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import aiomqtt
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker.errors import ConfigError
from nabij.local import embedded
from nabij.local.edge_config import EdgeListener
from nabij.local.embedded import Account, EmbeddedMqtt, MqttEngine
from nabij.local.managed_process import PORTS
from nabij.local.servers import Servers
from schemas.roles import Role

REPOSITORY = Path(__file__).parents[2]
END = "end"


@asynccontextmanager
async def connected(
    server: EmbeddedMqtt, account: Account, password: str | None = None
) -> AsyncIterator[aiomqtt.Client]:
    async with aiomqtt.Client(
        server.host,
        server.port,
        username=account.username,
        password=account.password if password is None else password,
        protocol=aiomqtt.ProtocolVersion.V5,
        timeout=2,
    ) as client:
        yield client


async def topics_until_end(client: aiomqtt.Client) -> list[str]:
    """The topics that arrive before the end mark, less what other tests have left retained."""
    topics: list[str] = []
    async with asyncio.timeout(5):
        async for message in client.messages:
            if message.payload == END.encode():
                return topics
            if message.retain:
                continue
            topics.append(str(message.topic))
    raise AssertionError("the stream of messages ended")


async def test_participant_reads_own_down_topics_and_nobody_elses(
    mqtt_server: EmbeddedMqtt, accounts: dict[str, Account]
) -> None:
    async with (
        connected(mqtt_server, accounts["nabij"]) as service,
        connected(mqtt_server, accounts["ann"]) as ann,
    ):
        for pattern in ("u/+/down/#", "u/ann/up/#", "police/#", "u/ann/down/#"):
            await ann.subscribe(f"nabij/v1/{pattern}", qos=1)
        await service.publish("nabij/v1/u/bob/down/alert", "for bob", qos=1)
        await service.publish("nabij/v1/police/gent/escalation/high", "for police", qos=1)
        await service.publish("nabij/v1/u/ann/up/report", "only written", qos=1)
        await service.publish("nabij/v1/u/ann/down/alert", "for ann", qos=1)
        await service.publish("nabij/v1/u/ann/down/alert", END, qos=1)
        assert set(await topics_until_end(ann)) == {"nabij/v1/u/ann/down/alert"}


async def test_participant_writes_own_up_topics_and_nothing_else(
    mqtt_server: EmbeddedMqtt, accounts: dict[str, Account]
) -> None:
    async with (
        connected(mqtt_server, accounts["nabij"]) as service,
        connected(mqtt_server, accounts["ann"]) as ann,
    ):
        await service.subscribe("nabij/v1/#", qos=1)
        for topic in ("u/bob/up/report", "u/ann/down/alert", "police/gent/command", "ops/x"):
            await ann.publish(f"nabij/v1/{topic}", "forged", qos=1)
        await ann.publish("nabij/v1/u/ann/up/report", "own", qos=1)
        await ann.publish("nabij/v1/u/ann/up/report", END, qos=1)
        assert await topics_until_end(service) == ["nabij/v1/u/ann/up/report"]


async def test_desk_reads_and_writes_own_zone_and_no_other(
    mqtt_server: EmbeddedMqtt, accounts: dict[str, Account]
) -> None:
    async with (
        connected(mqtt_server, accounts["nabij"]) as service,
        connected(mqtt_server, accounts["desk-gent"]) as desk,
    ):
        for pattern in ("nabij/v1/#", "nabij/v1/police/gent/#"):
            await desk.subscribe(pattern, qos=1)
        await service.publish("nabij/v1/police/kortrijk/escalation/high", "theirs", qos=1)
        await service.publish("nabij/v1/u/ann/down/alert", "ann's", qos=1)
        await desk.publish("nabij/v1/police/kortrijk/command", "forged", qos=1)
        await service.publish("nabij/v1/police/gent/escalation/high", "ours", qos=1)
        await desk.publish("nabij/v1/police/gent/command", END, qos=1)
        assert set(await topics_until_end(desk)) == {"nabij/v1/police/gent/escalation/high"}


@pytest.mark.parametrize("password", ["wrong", ""])
async def test_wrong_password_is_refused(
    mqtt_server: EmbeddedMqtt, accounts: dict[str, Account], password: str
) -> None:
    with pytest.raises(aiomqtt.MqttError):
        async with connected(mqtt_server, accounts["ann"], password):
            pass


@pytest.mark.parametrize("keepalive_s", [0, 1_800, 3_600, 65_535])
@pytest.mark.parametrize("protocol", [mqtt.MQTTv5, mqtt.MQTTv311])
def test_a_client_that_pings_seldom_is_let_in_and_keeps_its_own_time(
    mqtt_server: EmbeddedMqtt,
    accounts: dict[str, Account],
    protocol: mqtt.MQTTProtocolVersion,
    keepalive_s: int,
) -> None:
    answers: queue.SimpleQueue[tuple[ReasonCode, Properties | None]] = queue.SimpleQueue()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=protocol)
    client.username_pw_set("ann", accounts["ann"].password)
    client.on_connect = lambda _, __, ___, code, properties: answers.put((code, properties))
    client.connect(mqtt_server.host, mqtt_server.port, keepalive=keepalive_s)
    client.loop_start()
    try:
        code, properties = answers.get(timeout=10)
    finally:
        client.disconnect()
        client.loop_stop()
    assert not code.is_failure, code
    assert getattr(properties, "ServerKeepAlive", keepalive_s) >= keepalive_s


def test_mosquitto_has_no_limit_of_keepalives_that_newer_ones_refuse_clients_for() -> None:
    lines = (REPOSITORY / "mosquitto.conf").read_text().splitlines()
    assert not [line for line in lines if line.startswith("max_keepalive")]


@pytest.mark.parametrize("engine", [MqttEngine.EDGE, MqttEngine.MOSQUITTO])
async def test_killed_broker_comes_back_on_its_port_with_its_accounts(
    data_dir: Path, engine: MqttEngine, program: Callable[..., str]
) -> None:
    if engine is MqttEngine.MOSQUITTO:
        program("mosquitto")
    account = Account("nabij", 'pass:/ü€"\\word', Role.SERVICE)
    async with EmbeddedMqtt(data_dir, [account], engine=engine) as server:
        first = server.pid
        await server.kill()
        assert not server.running
        await server.restart()
        assert server.pid != first
        async with connected(server, account) as client:
            await client.subscribe("nabij/v1/#", qos=1)
            await client.publish("nabij/v1/ops/x", END, qos=1)
            assert await topics_until_end(client) == []
    assert not server.running


async def test_session_outlives_a_clean_stop(
    data_dir: Path, accounts: dict[str, Account], mqtt_engine: MqttEngine
) -> None:
    account = accounts["nabij"]
    options = {"identifier": "steady", "protocol": aiomqtt.ProtocolVersion.V311}
    for clean_start in (True, False):
        async with (
            EmbeddedMqtt(data_dir, [account], engine=mqtt_engine) as server,
            aiomqtt.Client(
                server.host,
                server.port,
                username=account.username,
                password=account.password,
                clean_session=False,
                **options,  # type: ignore[arg-type]
            ) as client,
        ):
            if clean_start:
                await client.subscribe("nabij/v1/#", qos=1)
            else:
                await client.publish("nabij/v1/ops/x", END, qos=1)
                assert await topics_until_end(client) == []


async def test_mqtt_311_is_served_on_the_same_port(
    mqtt_server: EmbeddedMqtt, accounts: dict[str, Account]
) -> None:
    async with (
        connected(mqtt_server, accounts["nabij"]) as modern,
        aiomqtt.Client(
            mqtt_server.host,
            mqtt_server.port,
            username="ann",
            password=accounts["ann"].password,
            protocol=aiomqtt.ProtocolVersion.V311,
        ) as old,
    ):
        await modern.subscribe("nabij/v1/#", qos=1)
        await old.publish("nabij/v1/u/ann/up/report", END, qos=1)
        assert await topics_until_end(modern) == []


def test_auto_is_our_own_and_its_file_has_no_password(tmp_path: Path) -> None:
    for engine in (MqttEngine.AUTO, MqttEngine.EDGE):
        own = EmbeddedMqtt(tmp_path, [Account("ann", "hush", Role.PARTICIPANT)], engine=engine)
        assert own.description == f"Nabij's own MQTT broker {version('nabij')}"
    listeners = [EdgeListener("127.0.0.1", 20_001)]
    text = embedded.edge_config(tmp_path, listeners, [Account("ann", "hush", Role.PARTICIPANT)])
    assert "nabij/v1/u/ann/up/#" in text
    assert "hush" not in text


async def test_another_broker_on_the_port_is_not_taken_for_ours(
    mqtt_server: EmbeddedMqtt, data_dir: Path
) -> None:
    account = Account("nabij", "secret", Role.SERVICE)
    with pytest.raises(ConfigError, match=f"did not start on 127.0.0.1:{mqtt_server.port}"):
        EmbeddedMqtt(data_dir, [account], port=mqtt_server.port).start()
    assert mqtt_server.running


def test_two_thousand_passwords_take_well_below_a_second() -> None:
    accounts = [Account(f"p-{n}", f"secret-{n}", Role.PARTICIPANT) for n in range(2_000)]
    before = time.process_time()
    text = embedded.password_file(accounts)
    assert time.process_time() - before < 1
    assert len(text.splitlines()) == 2_000
    assert "secret" not in text


def test_password_is_not_shown() -> None:
    assert "hush" not in repr(Account("ann", "hush", Role.PARTICIPANT))


@pytest.mark.parametrize("name", ["", "Ann", "ann:x", "ann\nuser nabij", "+", "#", "a" * 41])
def test_name_that_could_break_a_topic_or_a_file_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        Account(name, "secret", Role.PARTICIPANT)


@pytest.mark.parametrize(("role", "zone"), [(Role.POLICE_DESK, None), (Role.PARTICIPANT, "gent")])
def test_only_a_desk_has_a_zone(role: Role, zone: str | None) -> None:
    with pytest.raises(ValueError, match="zone"):
        Account("ann", "secret", role, zone)


def test_own_configuration_differs_from_the_shipped_in_place_alone(tmp_path: Path) -> None:
    shipped = options((REPOSITORY / "mosquitto.conf").read_text())
    ours = options(embedded.mosquitto_config(tmp_path, 20_001))
    changed = {name for name in shipped | ours if shipped.get(name) != ours.get(name)}
    assert changed - {"user"} == {
        "listener",
        "password_file",
        "acl_file",
        "persistence_location",
    }
    assert ours["listener"] == ["20001 127.0.0.1"]


def options(config: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^([a-z_]+) (.+)$", config, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


async def test_it_starts_on_its_last_port_or_says_that_it_is_taken(
    data_dir: Path,
) -> None:
    account = Account("nabij", "secret", Role.SERVICE)
    async with Servers() as servers:
        first = (await servers.start_mqtt(data_dir, [account])).port
    async with Servers() as servers:
        assert (await servers.start_mqtt(data_dir, [account])).port == first
    with socket.socket() as other:
        other.bind(("127.0.0.1", first))
        other.listen()
        async with Servers() as servers:
            second = (await servers.start_mqtt(data_dir, [account])).port
            (told,) = servers.descriptions
    assert second != first
    assert told.endswith(f":{second}: its last port, {first}, is taken")
    outside = EdgeListener("127.0.0.1", second)
    async with Servers() as servers:
        third = await servers.start_mqtt(data_dir, [account], outside=outside)
        assert third.moved_from == second
    (data_dir / "mqtt" / "port").write_text("99999")
    async with EmbeddedMqtt(data_dir, [account]) as server:
        assert server.port in PORTS
