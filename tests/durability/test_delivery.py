"""Each recipient's alert ends as delivered or expired in the record, never in limbo."""

import asyncio
import os
import signal
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from broker.core.changes import Change, IncidentChanged
from broker.mqtt import Connection, Endpoint, Message, PubAckReasonCode
from broker.store import AlertRecord, DeliveryState, Store
from broker.store.alert_states import MOST_TRIES, SENDING_MS
from nabij.local.embedded import Account, MqttEngine
from schemas import topics
from schemas.ids import alert_id
from schemas.messages import AlertReason
from schemas.taxonomy import Desk
from schemas.topics import ROOT
from services import routes
from tests.core.samples import START, report
from tests.durability.alerted import alerted
from tests.services.client import WITHIN_S
from tests.services.system import Servers, System, polled, running
from tests.store.samples import open_incident

LASTS_S = 1_800


async def record(system: System, incident: str) -> Mapping[str, AlertRecord]:
    return {one.user: one for one in await system.store.alerts.of(UUID(incident))}


async def until(system: System, incident: str, user: str, state: DeliveryState) -> AlertRecord:
    async def reached() -> bool:
        one = (await record(system, incident)).get(user)
        return one is not None and one.state is state

    await polled(reached)
    return (await record(system, incident))[user]


async def test_an_alert_is_delivered_when_the_device_says_so_by_whatever_reply(
    servers: Servers,
) -> None:
    async with running(servers) as system:
        ann, bob, cleo = [await system.connect(name) for name in ("ann", "bob", "cleo")]
        incident = await alerted(system, ann, bob, cleo)
        sent = await until(system, incident, "bob", DeliveryState.SENT)
        assert (sent.tries, sent.code, sent.reason) == (1, "SUCCESS", AlertReason.NEARBY)

        await system.reply(bob, incident, "seen")
        await system.reply(cleo, incident, "declined")

        states = {user: one.state for user, one in (await record(system, incident)).items()}
        assert states == {"bob": DeliveryState.DELIVERED, "cleo": DeliveryState.DELIVERED}


async def test_a_sync_that_names_or_covers_an_alert_is_the_devices_word(servers: Servers) -> None:
    async with running(servers) as system:
        ann, bob, cleo, dirk = [
            await system.connect(name) for name in ("ann", "bob", "cleo", "dirk")
        ]
        place = system.place()
        for near in (bob, cleo, dirk):
            await system.be_at(near, place)
        incident = (await system.report(ann, place))["incident"]
        alert = await bob.expect("u/bob/down/alert", incident=incident)
        for near in (cleo, dirk):
            await near.expect(f"u/{near.name}/down/alert", incident=incident)
        assert alert["id"] == str(alert_id(UUID(incident), 1))
        now = datetime.now(UTC)  # a clock may be ahead by 5 minutes

        await bob.ask(
            "u/bob/up/sync",
            {"since": (now - timedelta(hours=1)).isoformat(), "alerts": [alert["id"]]},
        )
        await cleo.ask("u/cleo/up/sync", {"since": (now + timedelta(minutes=5)).isoformat()})
        await dirk.ask("u/dirk/up/sync", {"since": (now + timedelta(minutes=1)).isoformat()})

        states = {user: one.state for user, one in (await record(system, incident)).items()}
        assert states["bob"] is DeliveryState.DELIVERED
        assert states["cleo"] is DeliveryState.DELIVERED
        assert states["dirk"] is not DeliveryState.DELIVERED  # a clock may be ahead of ours by that
        assert len(bob.on("u/bob/down/alert")) == 1  # what is named is not repeated


async def test_what_no_device_confirms_ends_as_expired(
    servers: Servers,
) -> None:
    async with running(
        servers, timers={"accept_s": 1, "acknowledge_s": 1, "silence_s": 2}
    ) as system:
        ann, bob = [await system.connect(name) for name in ("ann", "bob")]
        place = system.place()
        await system.be_at(bob, place)

        incident = (await system.report(ann, place))["incident"]

        await until(system, incident, "bob", DeliveryState.EXPIRED)
        assert await system.store.alerts.unconfirmed() == []
        notes = await system.store.history.of(UUID(incident))
        assert "expired" in {note.event for note in notes}


async def test_with_the_incidents_end_what_is_not_delivered_expires(servers: Servers) -> None:
    async with running(servers) as system:
        ann, bob, cleo = [await system.connect(name) for name in ("ann", "bob", "cleo")]
        desk = await system.connect("desk-gent", "police/gent/#")
        incident = await alerted(system, ann, bob, cleo)
        await system.reply(bob, incident, "seen")

        await system.command(desk, "close", incident, outcome="solved")

        await until(system, incident, "cleo", DeliveryState.EXPIRED)
        assert (await record(system, incident))["bob"].state is DeliveryState.DELIVERED
        assert await system.store.alerts.unconfirmed() == []
        late = await system.reply(cleo, incident, "seen")
        assert late["code"] == "incident_closed"
        await until(system, incident, "cleo", DeliveryState.DELIVERED)  # its word, though late


@pytest.mark.parametrize("mqtt_engine", [MqttEngine.MOSQUITTO])
async def test_a_refused_alert_is_recorded_with_its_reason_code_and_sent_again_until_it_is_taken(
    own_servers: Servers,
) -> None:
    acl = own_servers.mqtt.directory / "acl"
    allowed = acl.read_text()
    denied = allowed.replace("user nabij\n", "user nabij\ntopic deny nabij/v1/u/bob/down/alert\n")
    assert denied != allowed
    acl.write_text(denied)
    os.kill(own_servers.mqtt.pid, signal.SIGHUP)
    async with running(own_servers) as system:
        ann, bob = [await system.connect(name) for name in ("ann", "bob")]
        place = system.place()
        await system.be_at(bob, place)
        incident = (await system.report(ann, place))["incident"]

        refused = await until(system, incident, "bob", DeliveryState.REFUSED)
        assert refused.code == PubAckReasonCode.NOT_AUTHORIZED.name
        acl.write_text(allowed)
        os.kill(own_servers.mqtt.pid, signal.SIGHUP)

        await bob.expect("u/bob/down/alert", incident=incident)
        taken = await until(system, incident, "bob", DeliveryState.SENT)
        assert taken.code == PubAckReasonCode.SUCCESS.name
        assert taken.tries > 1


@pytest.mark.parametrize("mqtt_engine", [MqttEngine.EDGE])
async def test_an_alert_for_which_a_devices_queue_has_no_room_is_sent_again_when_it_has(
    own_servers: Servers, accounts: Mapping[str, Account]
) -> None:
    nabij, bob = (
        Endpoint.from_url(own_servers.mqtt.url_for(accounts[user])) for user in ("nabij", "bob")
    )
    async with Connection(bob, client_id="phone", subscriptions=[f"{ROOT}/u/bob/down/#"]):
        pass  # its session stays
    async with Connection(nabij, client_id="filler") as filler:
        large = Message(f"{ROOT}/u/bob/down/group", bytes(180_000))
        while (outcome := await filler.publish(large)) is PubAckReasonCode.SUCCESS:
            pass
        small = Message(large.topic, bytes(1_000))
        while (outcome := await filler.publish(small)) is PubAckReasonCode.SUCCESS:
            pass
        assert outcome is PubAckReasonCode.QUOTA_EXCEEDED
    async with running(own_servers) as system:
        ann, operator = (
            await system.connect("ann"),
            await system.connect("nabij", "u/+/down/receipt"),
        )
        place = system.place()
        await system.be_at(operator, place, user="bob")
        incident = (await system.report(ann, place))["incident"]

        refused = await until(system, incident, "bob", DeliveryState.REFUSED)
        assert refused.code == PubAckReasonCode.QUOTA_EXCEEDED.name
        async with Connection(bob, client_id="phone") as phone:
            await take_until(phone, topics.ALERT.topic(user="bob"))
            taken = await until(system, incident, "bob", DeliveryState.SENT)
            assert taken.code == PubAckReasonCode.SUCCESS.name


async def take_until(phone: Connection, topic: str) -> None:
    """Take all that comes until something comes on this topic."""
    async with asyncio.timeout(WITHIN_S):
        async for delivery in phone:
            delivery.acknowledge()
            if delivery.message.topic == topic:
                return


async def test_an_alert_that_nobody_took_is_sent_again_until_the_device_is_there(
    servers: Servers,
) -> None:
    async with running(servers) as system:
        ann, stranger = (
            await system.connect("ann"),
            await system.connect("nabij", "u/+/down/receipt"),
        )
        place = system.place()
        await system.be_at(stranger, place, user="bob")  # bob's device is known, and not connected

        incident = (await system.report(ann, place))["incident"]

        nobody = await until(system, incident, "bob", DeliveryState.REFUSED)
        assert nobody.code == PubAckReasonCode.NO_MATCHING_SUBSCRIBERS.name
        bob = await system.connect("bob")
        await bob.expect("u/bob/down/alert", incident=incident)  # and it did not ask
        assert (await until(system, incident, "bob", DeliveryState.SENT)).tries > 1


async def test_an_event_that_comes_again_alerts_nobody_again(servers: Servers) -> None:
    async with running(servers) as system:
        ann, bob = [await system.connect(name) for name in ("ann", "bob")]
        incident = await alerted(system, ann, bob)
        await until(system, incident, "bob", DeliveryState.SENT)
        again = IncidentChanged(
            incident=UUID(incident), change=Change.OPENED, at=datetime.now(UTC), desk=Desk.POLICE
        )

        await system.store.events.put([again] * 5)

        async def done() -> bool:
            return await system.store.events.length("alerting") == 0

        await polled(done)
        await system.reply(bob, incident, "seen")  # what was sent before has come before
        assert len(bob.on("u/bob/down/alert")) == 1


async def test_what_a_dead_worker_claimed_is_given_to_one_other_and_only_after_a_while(
    redis_url: str,
) -> None:
    async with (
        Store(redis_url, routes=routes()) as store,
        Store(redis_url, routes=routes()) as other,
    ):
        incident = await open_incident(store, report())
        await store.alerts.claim(
            incident, ["bob"], reason=AlertReason.NEARBY, now=START, retention_s=LASTS_S
        )
        late = START + timedelta(milliseconds=SENDING_MS)

        async def sweep_unconfirmed(of: Store, now: datetime) -> list[str]:
            claimed, _ = await of.alerts.sweep_unconfirmed(incident.id, now=now, lasts_s=LASTS_S)
            return [alert.user for alert in claimed]

        assert await sweep_unconfirmed(store, late - timedelta(seconds=1)) == []
        assert await store.alerts.due(int(late.timestamp() * 1000)) == [incident.id]
        assert await sweep_unconfirmed(store, late) == ["bob"]
        assert await sweep_unconfirmed(other, late) == []


async def test_what_may_have_been_dropped_is_sent_again_a_bounded_number_of_times(
    redis_url: str,
) -> None:
    async with Store(redis_url, routes=routes()) as store:
        incident = await open_incident(store, report())
        claimed = await store.alerts.claim(
            incident, ["bob", "cleo"], reason=AlertReason.NEARBY, now=START, retention_s=LASTS_S
        )
        await store.alerts.record_alerts(incident.id, claimed, [], now=START)
        await store.alerts.confirm(incident.id, "cleo", START)
        sent: list[str] = []
        for minute in range(1, 11):
            now = START + timedelta(seconds=20 * minute)
            again, _ = await store.alerts.sweep_unconfirmed(
                incident.id, now=now, lasts_s=LASTS_S, doubted=True
            )
            await store.alerts.record_alerts(incident.id, again, [], now=now)
            sent += [alert.user for alert in again]

        assert sent == ["bob"] * (MOST_TRIES - 1)


async def test_who_took_what_is_in_doubt_and_died_is_not_waited_for_until_the_alert_expires(
    redis_url: str,
) -> None:
    async with Store(redis_url, routes=routes()) as store:
        incident = await open_incident(store, report())
        claimed = await store.alerts.claim(
            incident, ["bob"], reason=AlertReason.NEARBY, now=START, retention_s=LASTS_S
        )
        await store.alerts.record_alerts(incident.id, claimed, [], now=START)
        for _ in range(2):  # the first one does not record that it has sent it
            (one,) = await store.alerts.unconfirmed()
            again, _ = await store.alerts.sweep_unconfirmed(
                one, now=START, lasts_s=LASTS_S, doubted=True
            )
            assert [alert.user for alert in again] == ["bob"]


async def test_an_alert_expires_though_its_incident_stays_open(redis_url: str) -> None:
    async with Store(redis_url, routes=routes()) as store:
        incident = await open_incident(store, report())
        claimed = await store.alerts.claim(
            incident, ["bob"], reason=AlertReason.NEARBY, now=START, retention_s=LASTS_S
        )
        await store.alerts.record_alerts(incident.id, claimed, [], now=START)
        ends = START + timedelta(seconds=LASTS_S)
        for now, expired in ((ends - timedelta(seconds=1), 0), (ends, 1), (ends, 0)):
            seen_to = await store.alerts.sweep_unconfirmed(incident.id, now=now, lasts_s=LASTS_S)
            assert seen_to == ([], expired)

        assert [one.state for one in await store.alerts.of(incident.id)] == [DeliveryState.EXPIRED]
        assert await store.alerts.unconfirmed() == []
