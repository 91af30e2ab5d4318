"""What is observed of each message, and that it outlives in a log the process that wrote it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import asdict, replace

from schemas.examples import AT, EXAMPLES, HERE, V5
from schemas.messages import GroupEventKind, GroupRole, Outcome, Subject
from verify.chaos.chaos_log import Blow, Entry, Log, Quiet, Started, Tail
from verify.oracle.evidence import Evidence
from verify.oracle.observations import (
    AlertSeen,
    CaseSeen,
    CommandSent,
    EscalationSeen,
    GroupEventSeen,
    MessageSent,
    PresenceSent,
    PublishAcknowledged,
    PublishDelivered,
    QuestionSeen,
    ReceiptSeen,
    ReportCreated,
    RetainedRead,
    SessionOpened,
    StateSeen,
)

T = 1_790_000_000.25
ZONE = {"t": T, "zone": "gent"}
USER = {"t": T, "user": "ann"}


def example(name: str) -> Any:
    return EXAMPLES[name]


ROWS: dict[str, msgspec.Struct] = {
    "report": ReportCreated.of(example("report"), **USER, odd=True),
    "presence": PresenceSent(**USER, number=3, cell=622054503267303423, short=True),
    "sent": MessageSent(**USER, subject=Subject.MESSAGE, incident=V5, text="said 1", done=T + 1),
    "command": CommandSent.of(example("command-assign"), **ZONE),
    "receipt": ReceiptSeen.of(example("receipt"), t=T, to="ann") or Quiet(t=T, process=""),
    "alert": AlertSeen.of(example("alert"), **USER),
    "brief": AlertSeen.of(example("brief"), **USER),
    "group": GroupEventSeen.of(example("group"), **USER),
    "question": QuestionSeen.of(example("question"), **USER),
    "escalation": EscalationSeen.of(example("escalation"), **ZONE),
    "case": CaseSeen.of(example("case"), t=T),
    "state": StateSeen.of(example("incident"), **ZONE, late=True),
    "acknowledged": PublishAcknowledged(t=T, topic="a/b", number=8, retained=True),
    "delivered": PublishDelivered(t=T, client="kept-1", topic="a/b", number=8),
    "session": SessionOpened(t=T, client="kept-1", present=True),
    "retained": RetainedRead(t=T, numbers={"a/b": 8}),
    "started": Started(t=T, process="device-1"),
    "blow": Blow(T, "redis", "redis", pause_s=1.5),
}


def test_a_row_has_what_the_message_says() -> None:
    report = asdict(ROWS["report"])
    assert (report["lat"], report["lon"], report["seen_at"]) == (
        HERE.lat,
        HERE.lon,
        AT.timestamp(),
    )
    assert {"user": "ann", "odd": True, "poison": False}.items() <= report.items()
    assert asdict(ROWS["receipt"])["outcome"] is Outcome.ACCEPTED
    assert (asdict(ROWS["receipt"])["notes"], asdict(ROWS["receipt"])["sequence"]) == (1, 42)
    assert asdict(ROWS["alert"])["wave"] == example("alert").wave
    assert asdict(ROWS["brief"]) == {
        **USER,
        "id": example("brief").id,
        "incident": example("brief").incident,
        "wave": 0,
        "reason": None,
    }
    assert asdict(ROWS["command"])["text"] == example("command-assign").unit
    assert asdict(ROWS["state"])["reports"] == example("incident").reports


def test_an_event_of_the_one_who_hears_it_is_their_own() -> None:
    event = example("group")
    mine = GroupEventSeen.of(replace(event, you=event.member), **USER)
    theirs = GroupEventSeen.of(replace(event, you="helper-9"), **USER)
    assert (mine.own, theirs.own) == (True, False)
    assert isinstance(mine.kind, GroupEventKind)
    assert mine.role is None or isinstance(mine.role, GroupRole)


def test_a_receipt_about_no_message_in_particular_is_no_row() -> None:
    assert ReceiptSeen.of(replace(example("receipt"), id=None), t=T, to="ann") is None


@pytest.mark.parametrize("name", ROWS)
def test_a_row_comes_back_from_its_log_as_it_was_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / "device-1.jsonl"
    row: Entry = ROWS[name]  # type: ignore[assignment]
    with Log(path) as log:
        log.write(row)
    assert list(Tail(path).entries()) == [row]


def test_half_a_line_of_a_killed_writer_costs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "device-1.jsonl"
    first, second = Started(t=1.0, process="device-1"), Started(t=2.0, process="device-1")
    with Log(path) as log:
        log.write(first)
    with path.open("ab") as file:
        file.write(b'{"type":"started","t":1')
    tail = Tail(path)
    assert list(tail.entries()) == [first]
    with Log(path) as log:
        log.write(second)
    assert list(tail.entries()) == [second]


def test_of_what_is_sent_the_last_row_counts() -> None:
    evidence = Evidence()
    sent = MessageSent(**USER, subject=Subject.MESSAGE, incident=V5, text="said 1")
    stands = PresenceSent(**USER, number=1, cell=None)
    evidence.take_all([sent, stands, replace(sent, done=T + 1), replace(stands, done=T + 2)])
    assert [one.done for one in evidence.sent.values()] == [T + 1]
    assert [one.done for one in evidence.presences.values()] == [T + 2]
