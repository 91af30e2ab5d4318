"""One payload for many topics: each gets it, and the answer says which outcomes differ."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.edge import crowd
from broker.edge.accounts import Answer, Credentials, Grant
from broker.edge.reasons import Reason
from broker.edge.server import EdgeServer, Listener
from broker.mqtt import Connection, Endpoint, Message, PubAckReasonCode
from broker.mqtt.crowd import outcomes_of, packets_for
from nabij.local.embedded import Account, EmbeddedMqtt, MqttEngine, find_program
from tests.conftest import missing
from tests.edge.wire import ALL, Wire, payloads

TOPICS = [f"u/{number}/down/alert" for number in range(10)]
SUCCESS, NOBODY = PubAckReasonCode.SUCCESS, PubAckReasonCode.NO_MATCHING_SUBSCRIBERS


@given(st.lists(st.sampled_from([0, 0, 0, 16, 151]), max_size=300))
def test_outcomes_are_read_as_they_were_written(codes: list[int]) -> None:
    written = crowd.outcomes([Reason(code) for code in codes])
    read = outcomes_of(SUCCESS, [(crowd.OUTCOMES, written)], len(codes))
    assert [code.value for code in read] == codes


@given(st.lists(st.text(min_size=1, max_size=3000), max_size=200))
def test_a_large_crowd_is_cut_into_packets_in_order(topics: list[str]) -> None:
    packets = list(packets_for(Message("", b"x"), topics))
    found = [msgspec.msgpack.decode(one.payload)[0] for one, _ in packets]
    assert [topic for some in found for topic in some] == topics
    assert [len(some) for some in found] == [count for _, count in packets]


def test_a_crowd_gets_one_payload_and_the_puback_names_who_did_not() -> None:
    wire = Wire()
    services = wire.client("services")
    services.read()
    there = [wire.client(f"c{number}") for number in (0, 1, 2, 5, 9)]
    for client, number in zip(there, (0, 1, 2, 5, 9), strict=True):
        client.subscribe(TOPICS[number])
    services.publish(crowd.TOPIC, msgspec.msgpack.encode((TOPICS, b"help")), qos=1)
    (puback,) = services.read()
    assert puback.user_properties == [(crowd.OUTCOMES, "16:3-4,6-8")]
    assert [payloads(client.messages()) for client in there] == [[b"help"]] * 5


def test_the_first_of_a_crowd_read_while_the_last_are_routed() -> None:
    wire = Wire()
    services = wire.client("services")
    topics = [f"u/{number}/down/alert" for number in range(100)]
    first, last = wire.client("first"), wire.client("last")
    first.subscribe(topics[0])
    last.subscribe(topics[-1])
    written: list[tuple[bool, ...]] = []

    def write() -> None:
        written.append(tuple(bool(one.connection._out) for one in (first, last)))

    wire.broker.write_now = write
    services.publish(crowd.TOPIC, msgspec.msgpack.encode((topics, b"help")), qos=1)
    assert written[0] == (True, False)
    assert [payloads(one.messages()) for one in (first, last)] == [[b"help"]] * 2


def test_the_answer_to_a_crowd_waits_for_the_journal() -> None:
    wire = Wire(is_durable=True)
    wire.client("bob", session_expiry_interval=60).subscribe(TOPICS[3])
    services = wire.client("services")
    services.read()
    wire.writes_at_once = False
    services.publish(crowd.TOPIC, msgspec.msgpack.encode((TOPICS, b"help")), qos=1)
    assert services.read() == []
    wire.write_journal()
    wire.settle()
    assert len(services.read()) == 1


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc1", msgspec.msgpack.encode([["a/#"], b""]), msgspec.msgpack.encode([[1], b""])],
)
def test_a_crowd_that_cannot_be_read_ends_the_connection_with_the_reason(payload: bytes) -> None:
    services = (wire := Wire()).client("services")
    services.read()
    services.publish(crowd.TOPIC, payload, qos=1)
    (goodbye,) = services.read()
    assert goodbye.reason_code.value == Reason.PAYLOAD_FORMAT_INVALID
    assert wire.client("services").read()


def test_a_participant_has_no_crowd() -> None:
    ann = Grant(name="ann", writes=("u/ann/up/#",))
    client = Wire(grants={"ann": ann}).client("x", username="ann")
    (connack,) = client.read()
    assert connack.user_properties == []
    client.publish(crowd.TOPIC, msgspec.msgpack.encode((["u/bob/down/alert"], b"!")), qos=1)
    assert client.read()[0].reason_code.value == Reason.NOT_AUTHORIZED


def _everybody(_: Credentials, answer: Answer) -> None:
    answer(ALL)


@pytest.fixture(params=["ours", "mosquitto"])
async def endpoint(
    request: pytest.FixtureRequest, tmp_path: Path, accounts: dict[str, Account]
) -> AsyncIterator[Endpoint]:
    if request.param == "ours":
        listeners = [Listener(host="127.0.0.1", port=0)]
        async with EdgeServer(listeners=listeners, authenticate=_everybody) as server:
            yield Endpoint.from_url(f"mqtt://127.0.0.1:{server.ports[0]}")
        return
    if find_program("mosquitto") is None:
        missing("Mosquitto")
    some, engine = list(accounts.values()), MqttEngine.MOSQUITTO
    async with EmbeddedMqtt(tmp_path, some, engine=engine) as mosquitto:
        yield Endpoint.from_url(mosquitto.url_for(accounts["nabij"]))


async def test_services_publish_to_a_crowd_in_the_same_words_on_any_mqtt_broker(
    endpoint: Endpoint,
) -> None:
    topics = [f"nabij/v1/u/{number}/down/alert" for number in range(3_000)]
    read = sorted(random.Random(1).sample(range(len(topics)), 40))
    async with (
        Connection(
            endpoint, client_id="there", subscriptions=[topics[number] for number in read]
        ) as there,
        Connection(endpoint, client_id="services") as services,
    ):
        messages = [Message(topic, b"help", expiry_s=60) for topic in topics]
        outcomes = await services.publish_batch(messages)
        assert [place for place, one in enumerate(outcomes) if one is SUCCESS] == read
        assert {one for one in outcomes if one is not SUCCESS} == {NOBODY}
        heard: list[str] = []
        async with asyncio.timeout(10):
            while len(heard) < len(read):
                for delivery in await there.receive(100):
                    heard.append(delivery.message.topic)
                    assert (delivery.message.payload, delivery.message.expiry_s) == (b"help", 60)
                    delivery.acknowledge()
        assert heard == [topics[number] for number in read]
