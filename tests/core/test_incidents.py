"""Reports become incidents as docs/protocol.md says, and incidents keep to their life cycle."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from broker.core import incidents
from broker.core.incidents import LIFE_CYCLE, Incident
from broker.errors import Code, Rejected
from schemas.ids import incident_id, region_in
from schemas.messages import Mode, Position, Report, Status
from schemas.taxonomy import Audience
from tests.core.samples import KORENMARKT, at, category, incident, north, placed, report

# -- which incident a report joins ---------------------------------------------------------------

places = st.builds(
    north, st.integers(-4, 4).map(lambda n: n * 70.0), st.integers(-2, 2).map(lambda n: n * 90.0)
)
minutes = st.integers(-90, 90)
modes = st.sampled_from(Mode)
codes = st.sampled_from(["fire", "theft"])
audiences = st.sampled_from(Audience)


@st.composite
def candidates(draw: st.DrawFn) -> Incident:
    found = incident(
        draw(places), draw(minutes), code=draw(codes), mode=draw(modes), audience=draw(audiences)
    )
    for _ in range(draw(st.integers(0, 2))):
        found = incidents.merged(found, report(minutes=draw(minutes)), at(0))
    found = replace(found, opened_at=at(draw(st.integers(0, 500))))
    return replace(found, status=draw(st.sampled_from(Status)))


def haversine_m(one: Position, other: Position) -> float:
    """Written a second time, from docs/protocol.md, "Places and distances"."""
    a, b = math.radians(one.lat), math.radians(other.lat)
    squared = math.sin((b - a) / 2) ** 2 + math.cos(a) * math.cos(b) * (
        math.sin(math.radians(other.lon - one.lon) / 2) ** 2
    )
    return 2 * 6_371_007.180918475 * math.asin(math.sqrt(squared))


def by_the_protocol(
    one: Report, merge: tuple[float, float], audience: Audience, known: Sequence[Incident]
) -> Incident | None:
    """Written from docs/protocol.md, "From report to incident", sentence by sentence."""
    merge_m, merge_s = merge
    best: Incident | None = None
    for other in known:
        if other.status == "closed":
            continue
        if (other.category, other.mode, other.audience) != (one.category, one.mode, audience):
            continue
        if haversine_m(one.location, other.location) > merge_m:
            continue
        early = (other.first_seen_at - one.seen_at).total_seconds()
        late = (one.seen_at - other.last_seen_at).total_seconds()
        if max(early, late) > merge_s:
            continue
        if best is None:
            best = other
            continue
        nearer = haversine_m(one.location, other.location) - haversine_m(
            one.location, best.location
        )
        if nearer < 0 or (nearer == 0 and other.opened_at < best.opened_at):
            best = other
    return best


@given(
    place=places,
    when=minutes,
    code=codes,
    mode=modes,
    audience=audiences,
    known=st.lists(candidates(), max_size=8, unique_by=lambda one: (one.location, one.opened_at)),
)
def test_report_joins_what_the_protocol_says(  # noqa: PLR0917 - Hypothesis gives them by name
    place: Position, when: int, code: str, mode: Mode, audience: Audience, known: list[Incident]
) -> None:
    rule = category(code)
    one = report(place, when, code=code, mode=mode)

    expected = by_the_protocol(one, (rule.merge_m, rule.merge_s), audience, known)

    assert incidents.merge_target(placed(one, audience), known) == expected
    assert incidents.merge_target(placed(one, audience), known[::-1]) == expected


NEARBY = Audience.POLICE_AND_NEARBY


def joins(one: Report, *known: Incident) -> Incident | None:
    return incidents.merge_target(placed(one, rule=category("fire")), known)


def test_report_on_the_merge_distance_joins_and_one_beyond_it_does_not() -> None:
    known = incident()
    rule = category("fire")
    place = north(rule.merge_m * 0.9)
    exactly = replace(rule, merge_m=haversine_m(place, KORENMARKT))  # a float, for the test

    assert incidents.merge_target(placed(report(place), rule=exactly), [known]) == known
    assert joins(report(north(rule.merge_m - 0.01)), known) == known
    assert joins(report(north(rule.merge_m + 0.01)), known) is None


@pytest.mark.parametrize("sign", [-1, 1])
def test_report_on_the_edge_of_the_span_joins_and_a_second_beyond_does_not(sign: int) -> None:
    known = incidents.merged(incident(), report(minutes=sign * 30), at(0))
    edge = sign * (30 + category("fire").merge_s / 60)

    assert joins(report(minutes=edge), known) == known
    assert joins(report(minutes=edge + sign / 60), known) is None
    assert joins(report(minutes=0), known) == known


def test_nearest_takes_the_report_and_at_equal_distance_the_one_opened_first() -> None:
    far, near = incident(north(100), 0), incident(north(50), 5)
    later, sooner = incident(north(80), 9), incident(north(80), 8)

    assert joins(report(), far, near, later) == near
    assert joins(report(), far, later, sooner) == sooner


@given(when=st.lists(minutes, max_size=6), status=st.sampled_from(Status))
def test_merging_only_ever_widens_the_span_and_counts_one(when: list[int], status: Status) -> None:
    known = replace(incident(), status=status)
    for number, minute in enumerate(when):
        after = incidents.merged(known, report(north(10.0 * number), minute), at(0))

        assert after.reports == known.reports + 1
        assert after.first_seen_at == min(known.first_seen_at, at(minute))
        assert after.last_seen_at == max(known.last_seen_at, at(minute))
        unmoved = replace(
            after,
            reports=known.reports,
            first_seen_at=known.first_seen_at,
            last_seen_at=known.last_seen_at,
        )
        assert unmoved == known  # never moved, never another radius, status or version
        known = after


def test_incident_is_opened_with_what_its_first_report_says() -> None:
    one = report(north(30), 3, text="rook")

    fire = incidents.opened_by(placed(one, region=0xBEEF), at(4))
    theft = incidents.opened_by(
        placed(replace(one, category="theft"), Audience.POLICE, region=0), at(4)
    )

    assert fire.id == incident_id(one.id, 0xBEEF)
    assert (region_in(fire.id), region_in(theft.id)) == (0xBEEF, 0)
    assert (fire.location, fire.first_report, fire.reports) == (one.location, one.id, 1)
    assert (fire.opened_at, fire.first_seen_at) == (at(4), at(3))
    assert (fire.text, theft.text) == ("rook", "")  # text_to of the category
    assert (fire.alerts_people, theft.alerts_people) == (True, False)
    assert not incident(code="graffiti").alerts_people


# -- the life cycle ------------------------------------------------------------------------------


def test_diagram_of_the_life_cycle_stands_in_the_protocol() -> None:
    protocol = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")

    assert f"```\n{incidents.life_cycle_diagram()}\n```" in protocol


def test_life_cycle_is_closed_and_every_status_leads_to_the_end() -> None:
    assert set(LIFE_CYCLE) == set(Status)
    for status, following in LIFE_CYCLE.items():
        assert following <= set(LIFE_CYCLE)
        assert status not in following
        assert Status.OPEN not in following  # nothing goes back to unanswered
        assert status is Status.CLOSED or Status.CLOSED in following
    assert not LIFE_CYCLE[Status.CLOSED]


@pytest.mark.parametrize("present", Status)
@pytest.mark.parametrize("wanted", Status)
def test_status_advances_by_the_table_and_no_other_way(present: Status, wanted: Status) -> None:
    known = replace(incident(), status=present)

    if wanted is present:
        assert incidents.advanced(known, wanted, by="desk") is known
    elif wanted in LIFE_CYCLE[present]:
        after = incidents.advanced(known, wanted, by="desk")
        assert replace(after, status=present, acknowledged_by=None) == known
        assert (after.status, after.acknowledged_by) == (wanted, "desk")
    else:
        with pytest.raises(Rejected) as refused:
            incidents.advanced(known, wanted, by="desk")
        closed = present is Status.CLOSED
        assert refused.value.code is (Code.INCIDENT_CLOSED if closed else Code.BAD_TRANSITION)
        assert refused.value.field == "$.status"


STEPS = {
    "acknowledge": lambda known: incidents.acknowledged(known, by="a"),
    "assign": lambda known: incidents.assigned(known, "unit-1", by="b"),
    "assign another": lambda known: incidents.assigned(known, "unit-2", by="c"),
    "on scene": lambda known: incidents.advanced(known, Status.ON_SCENE, by="d"),
    "close": lambda known: incidents.closed(known, "done", at(9), by="e"),
    "widen": lambda known: incidents.widened(known, known.radius_m * 2, at(3)),
    "merge": lambda known: incidents.merged(known, report(minutes=2), at(2)),
}


@given(names=st.lists(st.sampled_from(sorted(STEPS)), max_size=12))
def test_every_order_of_commands_stays_within_the_life_cycle(names: list[str]) -> None:
    known, told = incident(), list[str]()
    for name in names:
        try:
            after = STEPS[name](known)
        except Rejected as refused:
            told.append(refused.field)
            continue
        assert after.status is known.status or after.status in LIFE_CYCLE[known.status]
        assert (after.status is Status.CLOSED) == (after.closed_at is not None)
        assert len(set(after.assigned)) == len(after.assigned)
        assert set(after.assigned) >= set(known.assigned)
        assert known.acknowledged_by in (None, after.acknowledged_by)  # the first one keeps it
        assert after.radius_m >= known.radius_m
        assert after.wave - known.wave == (name == "widen")
        known = after
    assert set(told) <= {"$.status", "$.incident"}


def test_closed_incident_refuses_to_close_again() -> None:
    closed = incidents.closed(incident(), "done", at(5))

    with pytest.raises(Rejected) as refused:
        incidents.closed(closed, "again", at(6))

    assert refused.value.code is Code.INCIDENT_CLOSED
    assert incidents.acknowledged(closed, by="late") is closed


def test_state_for_the_police_says_how_the_incident_stands() -> None:
    known = incidents.assigned(incident(), "gent-21", by="desk")

    state = incidents.state_of(known, alerted=3, accepted=2, on_scene=1, now=at(7))

    assert (state.incident, state.status, state.version) == (known.id, known.status, known.version)
    assert (state.alerted, state.accepted, state.on_scene) == (3, 2, 1)
    assert (state.acknowledged_by, state.assigned) == ("desk", ("gent-21",))
    assert (state.opened_at, state.updated_at) == (known.opened_at, at(7))
