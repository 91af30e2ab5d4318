"""A detail never costs a report: it is repaired or left out, and its sender is told."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.ids import new_id
from schemas.topics import PRESENCE, REPORT, SYNC, Topic
from tests.services.bad_input import GOOD
from tests.services.client import Client, connecting
from tests.services.system import Servers, System, a_report, ago, moved

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def timers() -> dict[str, int]:
    return {"accept_s": 1_500, "acknowledge_s": 1_500}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def people(servers: Servers, system: System) -> AsyncIterator[dict[str, Client]]:
    assert system.store  # it runs first
    async with connecting(servers.mqtt, servers.accounts) as connect:
        yield {
            "ann": await connect("ann"),
            "bob": await connect("bob"),
            "desk": await connect("desk-gent", "police/gent/#"),
            "operators": await connect("nabij", "ops/rejected/#"),
        }


async def alerted(system: System, people: dict[str, Client]) -> str:
    """The incident of a report of ann that bob was alerted to."""
    place = system.place()
    await system.be_at(people["bob"], place)
    incident: str = (await system.report(people["ann"], place))["incident"]
    await people["bob"].expect("u/bob/down/alert", incident=incident)
    return incident


async def test_an_urgent_report_full_of_odd_details_reaches_police_and_neighbours(
    system: System, people: dict[str, Client]
) -> None:
    place = system.place()
    await system.be_at(people["bob"], place)
    report = a_report(
        place,
        category="Fire",
        text="Rook\r\nuit \u2067het\u2069 dak\x07",
        language="nl-BE",
        emergency_call=True,
        mode=None,
        reporter_location={"lat": 0, "lon": 0},
        smell="smoke",
    )
    report["location"]["accuracy_m"] = -1

    receipt = await system.send_report(people["ann"], report)

    assert receipt["outcome"] == "accepted"
    assert "112" in receipt["advice"]
    assert [note.partition(":")[0] for note in receipt["notes"]] == [
        "unknown field 'smell'",
        "category",
        "location.accuracy_m",
        "reporter_location",
        "text",
        "emergency_call",
        "language",
        "mode",
    ]
    escalation = await people["desk"].expect("police/gent/escalation/", report=report["id"])
    assert escalation["text"] == "Rook\nuit het dak"
    alert = await people["bob"].expect("u/bob/down/alert", incident=receipt["incident"])
    assert alert["text"] == "Rook\nuit het dak"
    assert await system.send_report(people["ann"], report) == receipt  # notes and all


async def test_a_misspelt_audience_alerts_nobody_and_the_reporter_is_told(
    system: System, people: dict[str, Client]
) -> None:
    place = system.place()
    await system.be_at(people["bob"], place)

    receipt = await system.report(people["ann"], place, audiance="police")

    assert receipt["notes"][0] == (
        "unknown field 'audiance': did you mean 'audience'? It was read so."
    )
    escalation = await people["desk"].expect("police/gent/escalation/", report=receipt["id"])
    assert escalation["audience"] == "police"
    other = await system.report(people["ann"], moved(place, north_m=200), category="fire")
    await people["bob"].expect("u/bob/down/alert", incident=other["incident"])
    assert not people["bob"].on("u/bob/down/alert", incident=receipt["incident"])


async def test_group_and_police_are_heard_whatever_is_odd(
    system: System, people: dict[str, Client]
) -> None:
    incident = await alerted(system, people)

    joined = await system.reply(people["bob"], incident, eta_s=119.6)
    assert joined["notes"] == ["eta_s: 119.6 was read as 120"]
    event = await people["ann"].expect("u/ann/down/group", incident=incident, kind="joined")
    assert event["eta_s"] == 120
    said = await system.say(people["bob"], incident, "ik\r\nkom")
    assert said["notes"] == [r"text: its line breaks were made \n"]
    await people["ann"].expect("u/ann/down/group", incident=incident, text="ik\nkom")
    told = await system.command(
        people["desk"], "Inform", incident, by="\u202edesk 4", text="\ufeffBlijf daar", urgent=True
    )
    assert told["outcome"] == "accepted"
    assert len(told["notes"]) == 4
    await people["ann"].expect("u/ann/down/group", incident=incident, text="Blijf daar")


async def test_an_availability_that_is_not_understood_mutes_and_is_told_unasked(
    system: System, people: dict[str, Client]
) -> None:
    place = system.place()
    await system.be_at(people["bob"], place)
    presence = {"at": ago(), "location": {"lat": place[0], "lon": place[1]}, "availability": "dnd"}

    answer = await people["bob"].ask("u/bob/up/presence", presence)

    assert answer.payload["outcome"] == "accepted"
    assert answer.payload["notes"][0].startswith("availability: Expected one of on_duty, ")
    incident = (await system.report(people["ann"], place))["incident"]
    state = await people["desk"].expect("police/gent/incident/", incident=incident)
    assert state.get("alerted", 0) == 0


@pytest.mark.parametrize(
    ("payload", "advice"),
    [
        (b'{"language": "fr-BE", "category"', "Appelez"),
        (b'{"language": "en"}', "Call"),
        (b"", "Bel"),
    ],
)
async def test_a_refused_report_says_to_call_112_in_the_language_of_its_reporter(
    payload: bytes, advice: str, people: dict[str, Client]
) -> None:
    receipt = (await people["ann"].ask("u/ann/up/report", payload)).payload

    assert receipt["outcome"] == "rejected"
    assert receipt["advice"].startswith(advice)


async def test_a_refused_report_of_a_routine_kind_does_not_send_for_112(
    system: System, people: dict[str, Client]
) -> None:
    receipt = await system.report(
        people["ann"], system.place(), category="graffiti", location={"lat": 0, "lon": 0}, smell=1
    )

    assert receipt["code"] == "null_island"
    assert receipt["notes"] == ["unknown field 'smell': ignored"]
    assert "advice" not in receipt


# -- times ---------------------------------------------------------------------------------------

EDGES = [
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "0001-01-01T00:00:00-23:59",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-23:59",
    "9999-12-31T23:59:59+23:59",
    "1969-12-31T23:59:60Z",
    "1970-01-01T00:00:00Z",
    "2016-12-31T23:59:60Z",
    "0000-01-01T00:00:00Z",
]
moments = st.sampled_from(EDGES) | st.datetimes(
    timezones=st.integers(-1_439, 1_439).map(lambda m: timezone(timedelta(minutes=m)))
).map(datetime.isoformat)


@pytest.mark.parametrize("field", ["seen_at", "at", "muted at", "since"])
async def test_no_time_is_too_much_for_a_service(field: str, people: dict[str, Client]) -> None:
    """Each gets a receipt, so none was a dead letter."""
    topic: Topic[Any] = {"seen_at": REPORT, "since": SYNC}.get(field, PRESENCE)
    drawn: list[str] = [*EDGES]

    @settings(max_examples=25, database=None, suppress_health_check=[*HealthCheck])
    @given(moment=moments)
    def draw(moment: str) -> None:
        drawn.append(moment)

    draw()
    for moment in drawn:
        fields = {**GOOD[topic](), field.rpartition(" ")[2]: moment}
        if field == "muted at":
            fields |= {"availability": "muted"}
        answer = await people["ann"].ask(
            f"u/ann/up/{topic.name}",
            json.dumps(fields).encode(),
            response_topic="u/ann/down/receipt",
        )
        assert answer.payload["subject"] == topic.name
        assert answer.payload.get("code") != "internal"
    assert not people["operators"].received


async def test_since_long_ago_means_everything(system: System, people: dict[str, Client]) -> None:
    incident = await alerted(system, people)
    people["bob"].received.clear()

    await people["bob"].ask("u/bob/up/sync", {"since": "0001-01-01T00:00:00+14:00"})

    assert people["bob"].on("u/bob/down/alert", incident=incident)


async def test_since_in_the_future_marks_nothing_delivered(
    system: System, people: dict[str, Client]
) -> None:
    incident = await alerted(system, people)
    for ahead in (timedelta(minutes=6), timedelta(days=3_000)):
        answer = await people["bob"].ask(
            "u/bob/up/sync", {"since": (datetime.now(UTC) + ahead).isoformat()}
        )
        assert (answer.payload["code"], answer.payload["field"]) == ("too_far_ahead", "$.since")
    people["bob"].received.clear()

    await people["bob"].ask("u/bob/up/sync", {"since": ago(minutes=1), "alerts": [str(new_id())]})

    assert people["bob"].on("u/bob/down/alert", incident=incident)
