"""The embedded default, rumqttd out of the iotcore wheel: what it does, and where it is peculiar.

Each peculiarity that the product has to live with has its test, so that a new wheel that changes
one is noticed.
"""

import asyncio

from broker.mqtt import Connection, Message, PubAckReasonCode
from tests.mqtt.brokers import BrokerProcess
from tests.mqtt.exchange import EVERY_PROPERTY, WITHIN_S, disconnected, drop, hold


async def test_every_property_survives_the_round_trip(rumqttd: BrokerProcess) -> None:
    async with Connection(rumqttd.endpoint, client_id="c", subscriptions=["t/#"]) as connection:
        assert await connection.publish(EVERY_PROPERTY) is PubAckReasonCode.SUCCESS
        [delivery] = await hold(connection, 1)
        assert delivery.message == EVERY_PROPERTY
        delivery.acknowledge()


async def test_a_batch_is_acknowledged_out_of_order_by_us_without_harm(
    rumqttd: BrokerProcess,
) -> None:
    """rumqttd drops a client whose PUBACKs are out of order, hence the order in `Session`."""
    async with Connection(rumqttd.endpoint, client_id="c", subscriptions=["t"]) as connection:
        messages = [Message("t", str(number).encode()) for number in range(50)]
        await connection.publish_batch(messages)
        for delivery in reversed(await hold(connection, 50)):
            delivery.acknowledge()
        await connection.publish(Message("t", b"end"))
        [delivery] = await hold(connection, 1)
        assert delivery.message.payload == b"end"
        assert connection.stats().reconnects == 0


async def test_what_was_not_acknowledged_comes_again_but_without_the_dup_flag(
    rumqttd: BrokerProcess,
) -> None:
    async with Connection(rumqttd.endpoint, client_id="c", subscriptions=["t"]) as connection:
        await connection.publish_batch([Message("t", b"done"), Message("t", b"keep me")])
        first, second = await hold(connection, 2)
        first.acknowledge()
        await connection.publish(Message("elsewhere", b""))  # a round trip: the PUBACK is there
        drop(connection)
        [again] = await hold(connection, 1)
        assert again.message == second.message
        assert not again.duplicate


async def test_retained_state_and_last_will_reach_who_comes_later(rumqttd: BrokerProcess) -> None:
    will = Message("status", b"gone", retain=True)
    async with Connection(rumqttd.endpoint, client_id="d", will=will) as doomed:
        await doomed.publish(Message("status", b"here", retain=True))
        async with Connection(rumqttd.endpoint, client_id="w", subscriptions=["status"]) as witness:
            [delivery] = await hold(witness, 1)
            assert (delivery.message.payload, delivery.message.retain) == (b"here", True)
            delivery.acknowledge()
            drop(doomed)
            [delivery] = await hold(witness, 1)
            assert delivery.message.payload == b"gone"


async def test_a_killed_rumqttd_forgets_all_and_our_publishes_survive_it(
    rumqttd: BrokerProcess,
) -> None:
    async with Connection(rumqttd.endpoint, client_id="c", subscriptions=["t"]) as connection:
        rumqttd.kill()
        await disconnected(connection)
        async with asyncio.timeout(WITHIN_S):
            waiting = connection.publish_nowait(Message("t", b"patience"))
            await asyncio.to_thread(rumqttd.start)
            assert await waiting is PubAckReasonCode.SUCCESS
        [delivery] = await hold(connection, 1)
        assert delivery.message.payload == b"patience"


async def test_a_subscription_is_given_a_hundred_retained_messages_at_most(
    rumqttd: BrokerProcess,
) -> None:
    """A desk that comes late sees no more states than that, as README says."""
    topics = [f"state/{number}" for number in range(130)]
    async with Connection(rumqttd.endpoint, client_id="d") as desk:
        await desk.publish_batch([Message(topic, b"open", retain=True) for topic in topics])
        await desk.publish(Message("other", b""))
        async with Connection(rumqttd.endpoint, client_id="w", subscriptions=["state/+"]) as late:
            seen = await hold(late, 100)
            for delivery in seen:
                delivery.acknowledge()
            await desk.publish(Message("state/last", b"live"))
            [live] = await hold(late, 1)
            assert len({one.message.topic for one in seen} & set(topics)) == 100
            assert live.message.payload == b"live"
