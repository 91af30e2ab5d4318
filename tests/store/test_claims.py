"""Each participant is alerted to an incident once, however often workers ask, and die."""

import asyncio
import random

from broker.core.changes import Change
from broker.store import Store
from schemas.messages import AlertReason
from tests.core.samples import START, report
from tests.store.samples import changed, open_incident, widen


async def test_everybody_is_claimed_once_by_however_many(store: Store, other_store: Store) -> None:
    incident = await open_incident(store, report(), user="ann")
    users = [f"u-{n}" for n in range(500)]
    chance = random.Random(1)

    async def claim_and_send(of: Store, some: list[str]) -> list[str]:
        claimed = await of.alerts.claim(
            incident, some, reason=AlertReason.NEARBY, now=START, retention_s=600
        )
        await of.alerts.record_alerts(
            incident.id, claimed, [], now=START, event=changed(incident, Change.ALERTED)
        )
        return [alert.user for alert in claimed]

    sent = [
        await claim_and_send((store, other_store)[n % 2], chance.sample([*users, "ann"], 120))
        for n in range(12)
    ]

    everybody = [user for some in sent for user in some]
    assert len(everybody) == len(set(everybody))
    assert "ann" not in everybody  # the reporter
    assert await store.alerts.alerted(incident.id) == len(everybody)


async def test_claims_for_two_reasons_at_once_give_the_alert_to_one(
    store: Store, other_store: Store
) -> None:
    incident = await open_incident(store, report())
    wider = await widen(store, incident, 900.0)

    first, second = await asyncio.gather(
        store.alerts.claim(incident, ["bob"], reason=AlertReason.NEARBY, now=START, retention_s=9),
        other_store.alerts.claim(
            wider, ["bob"], reason=AlertReason.WIDENED, now=START, retention_s=9
        ),
    )

    assert len(first) + len(second) == 1  # the other leaves it to the event that has it in hand
    assert await store.alerts.alerted(incident.id) == 1


async def test_claimed_and_not_sent_is_claimed_again_and_refused_is_not(store: Store) -> None:
    incident = await open_incident(store, report())

    async def claim() -> set[str]:
        claimed = await store.alerts.claim(
            incident, ["bob", "cleo", "dirk"], reason=AlertReason.NEARBY, now=START, retention_s=9
        )
        return {alert.user for alert in claimed}

    claimed = await store.alerts.claim(
        incident, ["bob", "cleo", "dirk"], reason=AlertReason.NEARBY, now=START, retention_s=9
    )
    assert await claim() == {"bob", "cleo", "dirk"}  # the worker that claimed has died
    await store.alerts.record_alerts(
        incident.id, claimed[:1], claimed[1:2], now=START, event=changed(incident, Change.ALERTED)
    )

    assert await claim() == {"dirk"}
    assert (
        await store.alerts.claim(incident, [], reason=AlertReason.NEARBY, now=START, retention_s=9)
        == []
    )
    [missed] = await store.missed.since("bob", START, 100)
    alert = missed.alert
    assert alert is not None
    assert (alert.user, alert.wave, alert.reason) == ("bob", 1, AlertReason.NEARBY)


async def test_who_was_claimed_and_has_moved_before_it_was_sent_is_not_forgotten(
    store: Store,
) -> None:
    incident = await open_incident(store, report())
    was = {"reason": AlertReason.NEARBY, "now": START, "retention_s": 9}
    assert await store.alerts.claim(incident, ["bob", "cleo"], **was)  # as above
    wider = await widen(store, incident, 900.0)
    await store.alerts.claim(wider, ["eve"], **{**was, "reason": AlertReason.WIDENED})

    again = await store.alerts.claim(incident, ["bob", "dirk"], **was, unsent=True)

    assert sorted(alert.user for alert in again) == ["bob", "cleo", "dirk"]
    await store.alerts.record_alerts(
        incident.id, again, [], now=START, event=changed(incident, Change.ALERTED)
    )
    assert await store.alerts.claim(incident, [], **was, unsent=True) == []


async def test_recording_many_thousand_alerts_is_one_change(store: Store) -> None:
    incident = await open_incident(store, report())
    users = [f"u-{n}" for n in range(9_000)]
    claimed = await store.alerts.claim(
        incident, users, reason=AlertReason.NEARBY, now=START, retention_s=600
    )

    await store.alerts.record_alerts(
        incident.id, claimed, [], now=START, event=changed(incident, Change.ALERTED)
    )

    assert len(claimed) == await store.alerts.alerted(incident.id) == 9_000
    assert await store.incidents.version(incident.id) == 2
