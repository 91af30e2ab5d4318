"""Events as they are stored on the streams, and who reads which."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest

from broker.core.changes import (
    CONVERSATION_SILENT,
    ERASED,
    INCIDENT_CHANGED,
    INFORMED,
    WALKED_IN,
    Change,
    ConversationSilent,
    Erased,
    Event,
    IncidentChanged,
    Informed,
    Interest,
    Routes,
    WalkedIn,
    decode,
    encode,
)
from schemas.taxonomy import Desk

ONE, OTHER = UUID(int=1), UUID(int=2)
AT = datetime(2026, 11, 26, 12, 30, tzinfo=UTC)
ONE_, OTHER_ = '"00000000-0000-0000-0000-000000000001"', '"00000000-0000-0000-0000-000000000002"'
AT_ = '"2026-11-26T12:30:00Z"'
# Of every kind, as the workers of the release before read it in a rolling upgrade.
STORED: dict[str, Event] = {
    f'{{"type":"incident_changed","incident":{ONE_},"change":"opened","at":{AT_},"desk":"police",'
    f'"report":{OTHER_}}}': IncidentChanged(
        incident=ONE, change=Change.OPENED, at=AT, desk=Desk.POLICE, report=OTHER
    ),
    f'{{"type":"incident_changed","incident":{ONE_},"change":"closed","at":{AT_},"desk":"city"}}': (
        IncidentChanged(incident=ONE, change=Change.CLOSED, at=AT, desk=Desk.CITY)
    ),
    f'{{"type":"walked_in","incident":{ONE_},"users":["ann","bob"]}}': WalkedIn(
        incident=ONE, users=("ann", "bob")
    ),
    f'{{"type":"informed","incident":{ONE_},"command":{OTHER_},"text":"Wij komen","at":{AT_},'
    f'"report":null}}': Informed(incident=ONE, command=OTHER, text="Wij komen", at=AT),
    f'{{"type":"conversation_silent","incident":{ONE_},"conversation":{OTHER_},"at":{AT_}}}': (
        ConversationSilent(incident=ONE, conversation=OTHER, at=AT)
    ),
    f'{{"type":"erased","incident":{ONE_},"zone":"gent"}}': Erased(incident=ONE, zone="gent"),
}
CHANGES = (
    "opened merged renewed widened alerted replied commanded overdue restated closed"  # as stored
)


@pytest.mark.parametrize("stored", STORED)
def test_an_event_is_stored_as_the_release_before_reads_it(stored: str) -> None:
    assert encode(STORED[stored]).decode() == stored
    assert decode(stored.encode()) == STORED[stored]


def test_every_change_is_stored_by_its_word() -> None:
    assert [change.value for change in Change] == CHANGES.split()


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode(b'{"type":"heard"}')


def changed(change: Change, desk: Desk) -> IncidentChanged:
    return IncidentChanged(incident=ONE, change=change, at=AT, desk=desk)


def test_an_event_is_for_the_services_that_read_its_kind_in_their_order() -> None:
    routes = Routes(
        {
            "relay": [],
            "police": [
                Interest(INCIDENT_CHANGED.payload, {Change.OPENED, Change.CLOSED}, {Desk.POLICE}),
                Interest(ERASED.payload),
            ],
            "city": [Interest(INCIDENT_CHANGED.payload, {Change.OPENED}, {Desk.CITY})],
            "groups": [Interest(INCIDENT_CHANGED.payload), Interest(INFORMED.payload)],
        }
    )

    assert routes.readers == ("police", "city", "groups")
    assert routes.readers_of(changed(Change.OPENED, Desk.POLICE)) == ("police", "groups")
    assert routes.readers_of(changed(Change.OPENED, Desk.CITY)) == ("city", "groups")
    assert routes.readers_of(changed(Change.MERGED, Desk.POLICE)) == ("groups",)
    assert routes.readers_of(Erased(incident=ONE, zone="gent")) == ("police",)
    assert routes.readers_of(Informed(incident=ONE, command=OTHER, text="", at=AT)) == ("groups",)
    assert routes.readers_of(WalkedIn(incident=ONE, users=())) == ()


def test_a_service_reads_an_event_once_however_often_it_says_so() -> None:
    twice = [Interest(WALKED_IN.payload), Interest(CONVERSATION_SILENT.payload)] * 2

    assert Routes({"groups": twice}).readers_of(WalkedIn(incident=ONE, users=())) == ("groups",)
