"""Groups: names hold, counts add up, and only who belongs is heard."""

import re
from itertools import count
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from broker.core import membership
from broker.core.membership import Member, Part
from broker.errors import Code, Rejected
from schemas.ids import new_id
from schemas.messages import GroupEventKind, GroupRole, Reply, ReplyKind
from tests.core.samples import at

INCIDENT = new_id()
USERS = ["ann", "bob", "cleo", "dirk", "eva"]
ACCEPTED, LEFT = ReplyKind.ACCEPTED, ReplyKind.LEFT
LATER = 2**47  # Unix ms, long after every reply is made
users = st.sampled_from(USERS)


def reply(kind: ReplyKind, eta_s: int | None = None) -> Reply:
    return Reply(id=new_id(), incident=INCIDENT, kind=kind, eta_s=eta_s)


class Group(RuleBasedStateMachine):
    """Any order of alerts, reports and replies, as intake, alerting and groups commit them."""

    def __init__(self) -> None:
        super().__init__()
        self.people: dict[str, Member] = {"zoe": membership.reporter({}, "zoe")}
        self.names = {"zoe": "reporter-1"}
        self.inside = {"zoe"}
        self.helping: set[str] = set()
        self.numbers = count()

    @rule(user=users)
    def alerted(self, user: str) -> None:
        self.people.setdefault(user, Member(part=Part.ALERTED))

    @rule(user=users)
    def reports(self, user: str) -> None:
        known = self.people.get(user)
        if known is None or not known.in_group:
            self.people[user] = membership.reporter(self.people, user)
        self.inside.add(user)

    @rule(user=users, kind=st.sampled_from(ReplyKind), eta_s=st.none() | st.integers(0, 600))
    def replies(self, user: str, kind: ReplyKind, eta_s: int | None) -> None:
        if user not in self.people:
            with pytest.raises(Rejected):
                membership.replied(self.people, user, reply(kind, eta_s), sequence=7, now_ms=LATER)
            return
        member, heard = membership.replied(
            self.people, user, reply(kind, eta_s), sequence=7, now_ms=LATER
        )
        self.people[user] = member
        was_inside = user in self.inside
        came_to_help = not self.names.get(user, "").startswith("reporter")
        if kind is ReplyKind.ACCEPTED or (kind is ReplyKind.ON_SCENE and came_to_help):
            self.helping.add(user)
        elif kind in (ReplyKind.LEFT, ReplyKind.DECLINED):
            self.helping.discard(user)
        if kind in (ReplyKind.ACCEPTED, ReplyKind.ON_SCENE):
            self.inside.add(user)
            assert heard is (GroupEventKind.MOVED if was_inside else GroupEventKind.JOINED)
            assert member.on_scene == (kind is ReplyKind.ON_SCENE)
        elif kind in (ReplyKind.LEFT, ReplyKind.DECLINED):
            self.inside.discard(user)
            assert heard is (GroupEventKind.LEFT if was_inside else None)
        else:
            assert heard is None

    @invariant()
    def members_are_those_who_are_inside(self) -> None:
        assert membership.members(self.people) == sorted(self.inside)
        parts = [member.part for member in self.people.values()]
        assert len(self.inside) == parts.count(Part.HELPER) + parts.count(Part.REPORTER)
        assert membership.helpers(self.people) == len(self.helping)

    @invariant()
    def names_are_unique_and_kept_for_ever(self) -> None:
        for user, member in self.people.items():
            if member.name:
                assert self.names.setdefault(user, member.name) == member.name
                assert re.fullmatch(r"(helper|reporter)-[1-9]\d*", member.name)
            else:
                assert user not in self.names
        assert len(set(self.names.values())) == len(self.names)

    @invariant()
    def only_who_is_inside_is_on_the_scene_and_may_speak(self) -> None:
        for user in USERS:
            member = self.people.get(user)
            if user in self.inside:
                assert membership.speaker(self.people, user) is member
            else:
                assert member is None or not member.on_scene
                with pytest.raises(Rejected) as refused:
                    membership.speaker(self.people, user)
                expected = Code.NOT_ALERTED if member is None else Code.NOT_A_MEMBER
                assert refused.value.code is expected

    @invariant()
    def event_counts_who_is_there(self) -> None:
        told = membership.event(
            membership.Group(INCIDENT, self.people, 1),
            "x",
            GroupEventKind.SAID,
            membership.Author("police", GroupRole.POLICE),
            at=at(0),
        )
        assert told.members == len(self.inside)
        assert 0 <= told.on_scene <= told.members


Group.TestCase.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
TestGroup = Group.TestCase


def test_helper_who_left_and_then_reports_comes_back_under_the_same_name() -> None:
    people = {"zoe": membership.reporter({}, "zoe")}
    for user in ("ann", "bob"):
        people[user] = Member(part=Part.ALERTED)
        people[user], _ = membership.replied(
            people, user, reply(ReplyKind.ACCEPTED, 60), sequence=7, now_ms=LATER
        )
    people["ann"], _ = membership.replied(
        people, "ann", reply(ReplyKind.LEFT), sequence=7, now_ms=LATER
    )
    people["ann"] = membership.reporter(people, "ann")
    people["cleo"], _ = membership.replied(
        people | {"cleo": Member(part=Part.ALERTED)},
        "cleo",
        reply(ReplyKind.ACCEPTED),
        sequence=7,
        now_ms=LATER,
    )

    assert {user: member.name for user, member in people.items()} == {
        "zoe": "reporter-1",
        "ann": "helper-1",
        "bob": "helper-2",
        "cleo": "helper-3",
    }
    assert people["ann"].role is GroupRole.RESPONDER
    assert membership.helpers(people) == 2  # bob and cleo: a report is no promise to come


def test_reporter_who_accepts_helps_and_keeps_the_name() -> None:
    people = {"zoe": membership.reporter({}, "zoe")}
    people["zoe"], _ = membership.replied(
        people, "zoe", reply(ReplyKind.ON_SCENE), sequence=7, now_ms=LATER
    )
    assert membership.helpers(people) == 0  # a witness who says where they are

    people["zoe"], heard = membership.replied(
        people, "zoe", reply(ReplyKind.ACCEPTED, 60), sequence=7, now_ms=LATER
    )

    assert heard is GroupEventKind.MOVED
    assert people["zoe"].name == "reporter-1"
    assert membership.helpers(people) == 1


def test_eta_is_of_the_last_reply_and_nothing_on_the_scene() -> None:
    people = {"ann": Member(part=Part.ALERTED)}
    people["ann"], _ = membership.replied(
        people, "ann", reply(ReplyKind.ACCEPTED, 300), sequence=7, now_ms=LATER
    )
    assert people["ann"].eta_s == 300
    people["ann"], _ = membership.replied(
        people, "ann", reply(ReplyKind.ON_SCENE), sequence=7, now_ms=LATER
    )
    assert people["ann"].eta_s == 0


def test_group_event_of_one_cause_has_one_id() -> None:
    cause = new_id()
    one, other = (
        membership.event(
            membership.Group(INCIDENT, {}, n),
            cause,
            GroupEventKind.SAID,
            membership.Author("a", GroupRole.NABIJ),
            at=at(n),
        )
        for n in (1, 2)
    )
    assert one.id == other.id


def test_of_replies_in_any_order_the_one_that_was_made_last_counts() -> None:
    made = [replace(reply(kind), id=made_at(ms)) for ms, kind in ((1000, ACCEPTED), (2000, LEFT))]
    for order in (made, made[::-1]):
        people = {"ann": Member(part=Part.ALERTED)}
        for one in order:
            people["ann"], _ = membership.replied(people, "ann", one, sequence=7, now_ms=5000)
        assert membership.members(people) == []


def test_a_report_does_not_make_an_earlier_reply_count() -> None:
    accepted = replace(reply(ACCEPTED, 60), id=made_at(1000))
    declined = replace(reply(ReplyKind.DECLINED), id=made_at(2000))
    people = {"ann": Member(part=Part.ALERTED)}
    for step in (declined, None, accepted):  # the acceptance comes last, and was made first
        if step is None:
            people["ann"] = membership.reporter(people, "ann")
        else:
            people["ann"], _ = membership.replied(people, "ann", step, sequence=7, now_ms=LATER)
    assert membership.helpers(people) == 0
    assert people["ann"].in_group


def test_a_clock_that_was_ahead_does_not_keep_later_replies_from_counting() -> None:
    people = {"ann": Member(part=Part.ALERTED)}
    ahead = replace(reply(ACCEPTED), id=made_at(9_000_000))
    people["ann"], _ = membership.replied(people, "ann", ahead, sequence=7, now_ms=5000)
    left = replace(reply(LEFT), id=made_at(6000))
    people["ann"], heard = membership.replied(people, "ann", left, sequence=8, now_ms=6100)
    assert heard is GroupEventKind.LEFT


def test_seen_counts_as_no_reply() -> None:
    people = {"ann": Member(part=Part.ALERTED)}
    seen = replace(reply(ReplyKind.SEEN), id=made_at(3000))
    people["ann"], _ = membership.replied(people, "ann", seen, sequence=7, now_ms=5000)
    accepted = replace(reply(ACCEPTED), id=made_at(2000))
    people["ann"], heard = membership.replied(people, "ann", accepted, sequence=7, now_ms=5000)
    assert heard is GroupEventKind.JOINED


def made_at(ms: int) -> UUID:
    return UUID(int=ms << 80 | 7 << 76 | 2 << 62)
