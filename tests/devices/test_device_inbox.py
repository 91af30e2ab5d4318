"""What a listener fails to show is neither known nor confirmed: its repeat is shown."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from devices.device_connection import Incoming
from devices.device_inbox import DeviceInbox, Listeners
from devices.journal import Journal
from schemas.codec import encode
from schemas.examples import AT, EXAMPLES
from schemas.ids import new_id
from schemas.messages import Alert, Brief, GroupEvent, GroupEventKind, Question

KINDS: dict[type, str] = {
    Alert: "take_alert",
    Brief: "take_brief",
    GroupEvent: "take_group",
    Question: "take_question",
}


class Screen:
    """Shows what comes, once it has failed to."""

    def __init__(self) -> None:
        self.is_broken = True
        self.shown: list[Any] = []

    def show(self, message: object, _received_at: float) -> None:
        if self.is_broken:
            raise RuntimeError
        self.shown.append(message)


def an_inbox(screen: Screen, journal: Journal | None) -> DeviceInbox:
    show = screen.show
    listeners = Listeners(on_alert=show, on_brief=show, on_group=show, on_question=show)
    return DeviceInbox(journal, listeners, on_gap=lambda: None)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("has_journal", [True, False])
async def test_what_could_not_be_shown_is_shown_when_it_comes_again_and_then_no_more(
    tmp_path: Path, kind: type, *, has_journal: bool
) -> None:
    message = next(each for each in EXAMPLES.values() if type(each) is kind)
    incoming = Incoming("a/topic", encode(message), None, 0.0)
    screen = Screen()
    async with Journal(tmp_path / "ann.journal") as opened:
        journal = opened if has_journal else None
        inbox = an_inbox(screen, journal)
        take = getattr(inbox, KINDS[kind])
        with pytest.raises(RuntimeError):
            take(incoming)
        assert (inbox.alerts, inbox.briefs, inbox.questions, inbox.groups) == ({}, {}, {}, {})
        assert inbox.sync_since(AT, inbox.alerts).groups == {}

        screen.is_broken = False
        if journal is not None:  # the device was started again in between
            inbox = an_inbox(screen, journal)
            take = getattr(inbox, KINDS[kind])
        take(incoming)
        take(incoming)

        assert screen.shown == [message]
        assert [*inbox.repeats.values()] == [1]


@pytest.mark.parametrize("back", [GroupEventKind.JOINED, GroupEventKind.SAID])
async def test_who_comes_back_lacks_nothing_of_the_absence_and_notices_a_later_gap(
    tmp_path: Path, back: GroupEventKind
) -> None:
    gaps: list[set[int]] = []
    joined = next(each for each in EXAMPLES.values() if type(each) is GroupEvent)

    def event(sequence: int, kind: GroupEventKind, *, own: bool) -> Incoming:
        told = replace(
            joined,
            id=new_id(),
            sequence=sequence,
            kind=kind,
            member="helper-1" if own else "helper-2",
            you="helper-1",
        )
        return Incoming("a/topic", encode(told), None, 0.0)

    async with Journal(tmp_path / "ann.journal") as journal:
        inbox = DeviceInbox(
            journal,
            Listeners(),
            on_gap=lambda: gaps.append({number for _, number in inbox.missing}),
        )
        inbox.take_group(event(1, GroupEventKind.JOINED, own=True))
        inbox.take_group(event(2, GroupEventKind.LEFT, own=True))
        inbox.take_group(event(1, GroupEventKind.JOINED, own=True))  # a repeat
        inbox.take_group(event(7, back, own=back is GroupEventKind.JOINED))
        assert gaps == []
        inbox.take_group(event(9, GroupEventKind.SAID, own=False))
        assert gaps == [{8}]
