"""Derived ids repeat; those that devices make are in order of time."""

import uuid
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from schemas import ids
from schemas.examples import V7


@given(cause=st.uuids(), number=st.integers(1, 9))
def test_every_other_derived_id_is_that_of_the_standard_library(
    cause: uuid.UUID, number: int
) -> None:
    def expected(text: str) -> uuid.UUID:
        return uuid.uuid5(ids.NAMESPACE, text)

    assert ids.alert_id(cause, number) == expected(f"alert|{cause}|{number}")
    assert ids.escalation_id(cause) == expected(f"escalation|{cause}")
    assert ids.overdue_id(cause, number) == expected(f"overdue|{cause}|{number}")
    assert ids.answer_escalation_id(cause) == expected(f"answer|{cause}")
    assert ids.case_id(cause) == expected(f"case|{cause}")
    assert ids.group_event_id(cause, "closed") == expected(f"group|{cause}|closed")


@given(cause=st.uuids(), report=st.uuids(), region=st.integers(0, 0xFFFF))
def test_an_incident_and_its_questions_end_in_their_region(
    cause: uuid.UUID, report: uuid.UUID, region: int
) -> None:
    incident = ids.incident_id(cause, region)
    question = ids.question_id(cause, report, incident)

    for made, text in ((incident, f"incident|{cause}"), (question, f"question|{cause}|{report}")):
        derived = uuid.uuid5(ids.NAMESPACE, text)
        assert (made.version, made.variant) == (8, uuid.RFC_4122)
        assert (ids.region_in(made), made.bytes[:6]) == (region, derived.bytes[:6])
        assert made.bytes[9:14] == derived.bytes[9:14]
    assert ids.is_opened_by(incident, cause)
    assert not ids.is_opened_by(incident, question)
    assert ids.without_region(incident) == ids.incident_id(cause)


def test_ids_of_different_kinds_never_meet() -> None:
    cause = ids.new_id()
    made = [
        ids.incident_id(cause),
        ids.escalation_id(cause),
        ids.overdue_id(cause, 2),
        ids.answer_escalation_id(cause),
        ids.case_id(cause),
        ids.question_id(cause, cause, cause),
        ids.group_event_id(cause, cause),
        ids.alert_id(cause, 1),
        ids.alert_id(cause, 2),
    ]

    assert len(set(made)) == len(made)
    assert {identifier.version for identifier in made} == {5, 8}


def test_new_ids_are_of_version_7_and_grow() -> None:
    made = [ids.new_id() for _ in range(1_000)]

    assert {(identifier.version, identifier.variant) for identifier in made} == {(7, uuid.RFC_4122)}
    assert len(set(made)) == len(made)
    assert [m.int >> 80 for m in made] == sorted(m.int >> 80 for m in made)


def test_ids_are_made_from_what_docs_protocol_says() -> None:
    assert UUID("6e616269-6a00-5000-8000-6e6162696a00") == ids.NAMESPACE
    assert ids.said_id(V7) == ids._derived("said", V7)
    assert (
        len({ids.said_id(V7), ids.case_id(V7), ids.escalation_id(V7), ids.answer_escalation_id(V7)})
        == 4
    )
    assert ids.conversation_id(V7, 5) == ids.incident_id(V7, 5)
    assert ids.incident_id(V7) == ids.incident_id(V7, 0)
    assert ids.without_region(ids.incident_id(V7, 0xFFFF)) == ids.incident_id(V7, 0)
