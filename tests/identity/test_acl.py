"""Rights follow from the contract: what is sent may be written, what is received may be read."""

from pathlib import Path
from typing import Any

import pytest

from broker.identity.acl import patterns, rights
from nabij.local.embedded import Account, acl_file
from schemas import messages, topics
from schemas.roles import Role
from schemas.topics import RECEIPT, ROOT, TOPICS, Topic
from verify.simulation.wire_judge import matches

REPOSITORY = Path(__file__).parents[2]
OWN = {Role.PARTICIPANT: "ann", Role.POLICE_DESK: "gent", Role.CITY_DESK: "gent"}
BOUND = [*OWN]


def may(verb: str, role: Role, topic: str, *, contract: tuple[Topic[Any], ...] = TOPICS) -> bool:
    granted = (one.split() for one in rights(role, OWN.get(role), contract))
    return any(verb in allowed and matches(pattern, topic) for allowed, pattern in granted)


def of(topic: Topic[Any], name: str) -> str:
    return topic.topic(**dict.fromkeys(topic.levels, name))


def test_the_shipped_acl_is_the_contracts() -> None:
    accounts = [
        Account("nabij", "x", Role.SERVICE),
        *(
            Account(f"desk-{zone}", "x", Role.POLICE_DESK, zone)
            for zone in ("gent", "kortrijk", "maaseik", "unassigned")
        ),
        Account("city-desk", "x", Role.CITY_DESK),
    ]
    lines = (REPOSITORY / "mosquitto.acl").read_text(encoding="utf-8").splitlines()

    shipped = [line for line in lines if line and not line.startswith("#")]
    assert shipped == acl_file(accounts).splitlines()


@pytest.mark.parametrize("role", Role)
def test_every_role_may_write_what_it_sends_and_read_what_it_receives(role: Role) -> None:
    own = OWN.get(role, "any")
    for topic in TOPICS:
        if topic.sender is role:
            assert may("write", role, of(topic, own)), topic.template
        if topic.receiver is role:
            assert may("read", role, of(topic, own)), topic.template


@pytest.mark.parametrize("role", BOUND)
def test_nobody_has_a_right_to_what_is_of_others(role: Role) -> None:
    for topic in TOPICS:
        for verb in ("read", "write"):
            assert not may(verb, role, of(topic, "other")), f"{verb} {topic.template}"


@pytest.mark.parametrize("role", [Role.PARTICIPANT, Role.CITY_DESK, Role.OPERATOR])
def test_nobody_but_a_police_desk_may_write_what_services_send(role: Role) -> None:
    for topic in TOPICS:
        if topic.sender is Role.SERVICE:
            assert not may("write", role, of(topic, OWN.get(role, "any"))), topic.template


def test_a_participant_may_read_nothing_that_a_participant_sends() -> None:
    sent = [topic for topic in TOPICS if topic.sender is Role.PARTICIPANT]
    assert not any(may("read", Role.PARTICIPANT, of(topic, "ann")) for topic in sent)


def test_the_rights_of_participants_are_two_branches_however_many_topics_there_are() -> None:
    assert patterns() == [
        f"pattern read {ROOT}/u/%u/down/#",
        f"pattern write {ROOT}/u/%u/up/#",
    ]


def test_a_city_desk_that_is_bound_to_no_municipality_has_those_of_all() -> None:
    assert rights(Role.CITY_DESK) == [f"read {ROOT}/city/+/#", f"write {ROOT}/city/+/up/#"]


def test_a_new_topic_gives_its_rights_by_being_declared() -> None:
    new = Topic(
        "u/{user}/later/reply",
        messages.Reply,
        Role.PARTICIPANT,
        Role.SERVICE,
        receipt=RECEIPT,
    )
    assert not may("write", Role.PARTICIPANT, of(new, "ann"))
    assert may("write", Role.PARTICIPANT, of(new, "ann"), contract=(*TOPICS, new))
    assert not may("write", Role.PARTICIPANT, of(new, "bob"), contract=(*TOPICS, new))
    assert not may("read", Role.PARTICIPANT, of(new, "ann"), contract=(*TOPICS, new))


@pytest.mark.parametrize("template", ["news", "news/{user}", "all/news/{user}"])
def test_a_topic_whose_branch_would_be_everybodys_is_refused(template: str) -> None:
    new = Topic(template, messages.Alert, Role.SERVICE, Role.PARTICIPANT)

    with pytest.raises(ValueError, match="every participant would have the branch"):
        patterns((*TOPICS, new))


def test_services_have_all_topics_and_the_mqtt_brokers_own() -> None:
    assert rights(Role.SERVICE) == [f"readwrite {topics.ROOT}/#", "read $SYS/#"]
