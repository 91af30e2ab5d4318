"""What is decided, whole: each value against a golden file, and whose words, place and time it has.

After a change that is meant: `python -m tests.core.test_decisions` writes the golden file; read its
diff.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import fields, replace

from broker.core import alerts, escalation, incident_history, incidents, membership
from broker.core.incidents import Incident
from broker.core.membership import Member, Part
from broker.errors import Rejected
from schemas.messages import (
    Acknowledge,
    AlertReason,
    Answer,
    Ask,
    Assign,
    Case,
    Close,
    Escalation,
    GroupEventKind,
    GroupMessage,
    GroupRole,
    Inform,
    Mode,
    Position,
    Reply,
    ReplyKind,
    Report,
    SetStatus,
    Status,
)
from schemas.taxonomy import Audience, Desk, Names, Priority, Urgency
from tests.core.distinct import INCIDENT, NOW, REPORT, identifier
from tests.core.samples import POLICY, at, category, placed

GOLDEN = Path(__file__).parent / "golden" / "decisions.json"
ADVICE = Names(nl="Bel 112", fr="Appelez le 112", en="Call 112")
ANSWER = Answer(id=identifier(3), question=identifier(4), text="the answer's words")
MESSAGE = GroupMessage(id=identifier(5), incident=identifier(6), text="the message's words")
ORDER: dict[str, Any] = {"id": identifier(7), "incident": identifier(8), "by": "desk 2"}
REASONS = tuple(AlertReason)
PEOPLE = {
    "zoe": Member(Part.REPORTER, "reporter-1"),
    "ann": Member(Part.HELPER, "helper-1", 60, on_scene=True, hears_from=4),
    "bob": Member(Part.HELPER, "helper-4", 90, hears_from=6),
    "cleo": Member(Part.LEFT, "helper-2", 30, hears_from=2),
    "dirk": Member(Part.ALERTED),
    "eva": Member(Part.LEFT, "reporter-2", hears_from=3),
}
OPEN = replace(INCIDENT, status=Status.OPEN, acknowledged_by=None, outcome=None, closed_at=None)
ALERTING = replace(OPEN, audience=Audience.POLICE_AND_NEARBY)


def decisions() -> dict[str, Any]:
    """Return everything that the core makes of the distinct incident and report."""
    return {
        **_of_desks(),
        **_of_incidents(),
        **_of_alerts(),
        **_of_groups(),
        **_of_refusals(),
    }


def _of_desks() -> dict[str, Any]:
    return {
        "escalation of the first report": escalation.escalation_of(
            REPORT, replace(INCIDENT, reports=1), NOW
        ),
        "escalation of a later report": escalation.escalation_of(REPORT, INCIDENT, NOW),
        "overdue": escalation.overdue_of(INCIDENT, NOW),
        "answer": escalation.answer_of(ANSWER, INCIDENT, identifier(9), NOW),
        "said to the police": escalation.said_to_police(MESSAGE, INCIDENT, identifier(9), NOW),
        "said to the city": escalation.said_to_city(MESSAGE, INCIDENT, identifier(9), NOW),
        "case": escalation.case_of(REPORT, INCIDENT, NOW),
        "state": incidents.state_of(INCIDENT, alerted=31, accepted=7, on_scene=4, now=NOW),
        "acknowledge by": escalation.acknowledge_by(INCIDENT, POLICY.timers),
        "accept by": escalation.accept_by(INCIDENT, POLICY.timers),
        "silence": [
            escalation.silence(replace(INCIDENT, urgency=each), POLICY.timers).total_seconds()
            for each in Urgency
        ],
    }


def _opened(report: Report, **changed: Any) -> Incident:
    one = placed(report, Audience.POLICE, category("fire"), municipality="melle")
    return incidents.opened_by(one, NOW, **({"region": 99} | changed))


def _of_incidents() -> dict[str, Any]:
    """Return an incident whole, and of what happens to one the fields that it changes."""
    opened = _opened(REPORT)
    old = replace(OPEN, is_old=True)
    wordless = incidents.opened_by(
        placed(REPORT, rule=category("theft"), zone="z", municipality="m"), NOW, region=0
    )
    changes = {
        "opened with more": (opened, _opened(REPORT, alert_if_seen_within_s=1_234, radius_m=555.5)),
        "opened by something old": (opened, _opened(replace(REPORT, seen_at=at(-51)))),
        "opened without words for people": (opened, wordless),
        "merged": (OPEN, incidents.merged(OPEN, REPORT, NOW)),
        "merged, no longer old": (old, incidents.merged(old, REPORT, NOW)),
        "merged, still old": (old, incidents.merged(old, replace(REPORT, seen_at=at(-21)), NOW)),
        "merged, seen later": (OPEN, incidents.merged(OPEN, replace(REPORT, seen_at=at(8)), NOW)),
        "acknowledged": (OPEN, incidents.acknowledged(OPEN, by="desk 3")),
        "assigned": (OPEN, incidents.assigned(OPEN, "gent-21", by="desk 3")),
        "assigned on the scene": (INCIDENT, incidents.assigned(INCIDENT, "gent-23", by="desk 3")),
        "closed": (OPEN, incidents.closed(OPEN, "arrested", NOW, by="desk 3")),
        "closed in silence": (INCIDENT, incidents.closed(INCIDENT, "silent", NOW)),
        "widened": (OPEN, incidents.widened(OPEN, 823.0, NOW)),
    }
    return {"opened": opened} | {name: _changes(*pair) for name, pair in changes.items()}


def _changes(before: Incident, after: Incident) -> dict[str, Any]:
    now = msgspec.structs.asdict(after)
    return {name: now[name] for name in now if now[name] != getattr(before, name)}


def _of_alerts() -> dict[str, Any]:
    wave = {"expires_at": NOW, "wave": 2}
    alert = alerts.alert_of(ALERTING, ADVICE, reason=AlertReason.WALKED_IN, **wave)
    bare = replace(ALERTING, names=None, text="", mode=Mode.DRILL)
    commands = (
        Acknowledge(**ORDER),
        Assign(**ORDER, unit="gent-24"),
        Ask(**ORDER, text="who"),
        SetStatus(**ORDER, status=Status.ASSIGNED),
        Inform(**ORDER, text="stay"),
        Close(**ORDER, outcome="arrested"),
    )
    return {
        "alert": alert,
        "alert without words": alerts.alert_of(bare, ADVICE, reason=AlertReason.NEARBY, **wave),
        "brief": alerts.brief_of(replace(alert, location=Position(51.0123456, 3.7123456))),
        "note of the first report": [
            incident_history.reported(replace(one, reports=1), REPORT, "ann", NOW)
            for one in (
                OPEN,
                ALERTING,
                replace(ALERTING, is_old=True),
                replace(ALERTING, radius_m=0.0),
            )
        ],
        "note of a later report": incident_history.reported(OPEN, REPORT, "ann", NOW),
        "notes of changes": [
            incident_history.changed(OPEN, after, NOW)
            for after in (
                OPEN,
                incidents.closed(OPEN, "arrested", NOW),
                incidents.widened(OPEN, 823.0, NOW),
                replace(OPEN, attempts=3),
                replace(OPEN, version=18),
            )
        ]
        + [incident_history.changed(replace(OPEN, status=Status.CLOSED), INCIDENT, NOW)],
        "notes of alerts": [incident_history.alerted(ALERTING, each, NOW) for each in REASONS],
        "reasons": [incident_history.reason_of(each) for each in REASONS],
        "notes of commands": [incident_history.commanded(each, NOW) for each in commands],
        "notes of replies": [
            incident_history.replied("ann", _reply(ReplyKind.ACCEPTED, eta_s), NOW)
            for eta_s in (None, 0, 90)
        ],
    }


def _reply(kind: ReplyKind, eta_s: int | None = 45) -> Reply:
    return Reply(id=identifier(10), incident=identifier(11), kind=kind, eta_s=eta_s)


def _of_groups() -> dict[str, Any]:
    group = membership.Group(INCIDENT.id, PEOPLE, 8)
    author = membership.Author("helper-1", GroupRole.RESPONDER)
    said = (group, identifier(12), GroupEventKind.SAID, author)
    return {
        "what a reply makes of each": {
            f"{user} {kind}": membership.replied(
                PEOPLE, user, _reply(kind), sequence=7, now_ms=int(NOW.timestamp() * 1000)
            )
            for user in PEOPLE
            for kind in ReplyKind
        },
        "what a report makes of each": {
            user: membership.reporter(PEOPLE, user, hears_from=7)
            for user in ("cleo", "dirk", "eva", "nobody")
        },
        "the first reporter": membership.reporter({}, "ann"),
        "roles": {user: member.role for user, member in PEOPLE.items()},
        "members": membership.members(PEOPLE),
        "hearers by sequence": {
            str(each): membership.hearers(PEOPLE, each) for each in range(1, 8)
        },
        "helpers": membership.helpers(PEOPLE),
        "names of desks": membership.DESK_NAMES,
        "group event": membership.event(*said, at=NOW),
        "group event with more": membership.event(*said, at=NOW, text="words", eta_s=33),
    }


def _of_refusals() -> dict[str, Any]:
    closed = replace(INCIDENT, status=Status.CLOSED)
    tries = {
        "a step back": lambda: incidents.advanced(INCIDENT, Status.ACKNOWLEDGED),
        "a step after the end": lambda: incidents.advanced(closed, Status.ASSIGNED),
        "a second end": lambda: incidents.closed(closed, "again", NOW),
        "a reply of a stranger": lambda: membership.replied(
            PEOPLE, "x", _reply(ReplyKind.SEEN), sequence=1, now_ms=0
        ),
        "words of a stranger": lambda: membership.speaker(PEOPLE, "x"),
        "words of one who was merely alerted": lambda: membership.speaker(PEOPLE, "dirk"),
        "words of one who has left": lambda: membership.speaker(PEOPLE, "cleo"),
    }
    told = {}
    for name, attempt in tries.items():
        with pytest.raises(Rejected) as refused:
            attempt()
        told[name] = [refused.value.code, refused.value.field, refused.value.reason]
    return told


def as_text(made: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(made)).decode() + "\n"


def test_what_is_decided_is_as_in_the_golden_file() -> None:
    made = msgspec.json.decode(as_text(decisions()))
    golden = msgspec.json.decode(GOLDEN.read_bytes())

    assert {name: made[name] for name in made if made[name] != golden.get(name)} == {}
    assert made.keys() == golden.keys()


def _shared(*kinds: type[msgspec.Struct]) -> set[str]:
    names = [{field.name for field in fields(kind)} for kind in kinds]
    return set.intersection(*names)


@pytest.mark.parametrize("decide", [escalation.escalation_of, escalation.case_of])
@pytest.mark.parametrize(
    ("mode", "other", "audience"),
    [(Mode.REAL, Mode.DRILL, Audience.POLICE), (Mode.DRILL, Mode.REAL, Audience.POLICE_AND_NEARBY)],
)
def test_words_place_and_time_are_the_reports_own_and_where_it_belongs_the_incidents(
    decide: Callable[..., Escalation | Case], mode: Mode, other: Mode, audience: Audience
) -> None:
    report = replace(REPORT, mode=mode, audience=audience)
    incident = replace(INCIDENT, mode=other)
    made = decide(report, incident, NOW)
    of_report = _shared(type(made), Report) - {"id", "category"}
    of_incident = _shared(type(made), Incident) - of_report - {"id"}

    assert {"text", "location", "seen_at", "language", "mode"} <= of_report
    assert {"version", "reports", "category"} <= of_incident
    assert {name: getattr(made, name) for name in of_report} == {
        name: getattr(report, name) for name in of_report
    }
    assert {name: getattr(made, name) for name in of_incident} == {
        name: getattr(incident, name) for name in of_incident
    }
    assert (made.report, made.incident, made.committed_at) == (REPORT.id, INCIDENT.id, NOW)


def test_no_word_of_the_report_is_in_what_says_that_nobody_has_answered() -> None:
    made = escalation.overdue_of(INCIDENT, NOW)

    assert made.text == ""
    assert (made.report, made.seen_at) == (INCIDENT.first_report, INCIDENT.first_seen_at)
    assert (made.location, made.attempt) == (INCIDENT.location, INCIDENT.attempts)


def test_police_are_waited_for_in_no_status_but_open_and_at_no_other_desk() -> None:
    waiting = [
        (status, desk, urgency)
        for status in Status
        for desk in Desk
        for urgency in Urgency
        if escalation.awaits_police(replace(INCIDENT, status=status, desk=desk, urgency=urgency))
    ]
    assert waiting == [(Status.OPEN, Desk.POLICE, Urgency.URGENT)]


def test_a_deadline_starts_again_only_where_people_are_alerted() -> None:
    given: dict[str, Any] = {"accepted": 3, "left": 0, "timers": POLICY.timers, "now": NOW}
    later = NOW + timedelta(seconds=POLICY.timers.accept_s)

    assert escalation.accept_again_by(ALERTING, **given) == later
    assert escalation.accept_again_by(OPEN, **given) is None
    assert escalation.accept_again_by(replace(ALERTING, is_old=True), **given) is None


@pytest.mark.parametrize(
    "change", [{"radius_m": 0.0}, {"audience": Audience.POLICE}, {"is_old": True}]
)
def test_nobody_is_alerted_without_a_radius_to_what_is_old_or_the_polices(
    change: dict[str, Any],
) -> None:
    assert ALERTING.alerts_people
    assert not replace(ALERTING, **change).alerts_people
    assert ALERTING.has_group is (incident_history.not_alerting(ALERTING) is None)
    assert incident_history.not_alerting(replace(ALERTING, **change)) is not None


def test_a_conversation_is_the_incidents_where_there_is_a_group_and_else_the_reports_own() -> None:
    assert ALERTING.conversation_of(REPORT) == ALERTING.id
    own = OPEN.conversation_of(REPORT)
    opened = _opened(REPORT, region=int(own.int & 0xFFFF))
    assert own == opened.id  # as if it had opened one where it is, whichever it joined
    assert own != OPEN.id
    assert OPEN.conversation_of(replace(REPORT, location=Position(50.0, 5.0))) != own


@pytest.mark.parametrize("seconds", [-1, 0, 1])
def test_a_report_is_old_just_beyond_the_time_within_which_people_are_alerted(seconds: int) -> None:
    seen = replace(REPORT, seen_at=NOW - timedelta(seconds=3_600 + seconds))
    assert incidents.is_old(seen, 3_600, NOW) is (seconds > 0)


@pytest.mark.parametrize(
    "changed",
    [
        {"category": "smoke"},
        {"mode": Mode.DRILL},
        {"audience": Audience.POLICE_AND_NEARBY},
        {"status": Status.CLOSED},
    ],
)
def test_a_report_joins_nothing_of_another_category_mode_audience_or_what_is_closed(
    changed: dict[str, Any],
) -> None:
    one = replace(REPORT, category="fire")
    same = replace(OPEN, mode=REPORT.mode, location=REPORT.location)

    assert incidents.merge_target(placed(one, Audience.POLICE), [same]) is same
    other = replace(same, **changed)
    assert incidents.merge_target(placed(one, Audience.POLICE), [other]) is None


def test_limits_of_merging_are_the_narrower_of_the_incidents_and_the_policys() -> None:
    near = replace(OPEN, mode=REPORT.mode, location=Position(51.0108, 3.71))  # 89 m
    fire = replace(category("fire"), merge_m=100, merge_s=600)
    one = replace(REPORT, category="fire")

    def joins(known: Incident, report: Report = one, rule: Any = fire) -> bool:
        return incidents.merge_target(placed(report, Audience.POLICE, rule), [known]) is not None

    assert joins(near)
    assert not joins(replace(near, merge_m=88.0))
    assert not joins(near, rule=replace(fire, merge_m=88))
    late = replace(one, seen_at=near.last_seen_at + timedelta(seconds=500))
    assert joins(near, late)
    assert not joins(replace(near, merge_s=499.0), late)
    assert joins(replace(near, merge_s=None), late)
    assert not joins(replace(near, merge_s=None), late, replace(fire, merge_s=499))


def test_priority_never_changes_with_what_joins() -> None:
    for each in Priority:
        assert incidents.merged(replace(OPEN, priority=each), REPORT, NOW).priority is each


if __name__ == "__main__":
    GOLDEN.write_text(as_text(decisions()), "utf-8")
