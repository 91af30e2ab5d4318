"""What an MQTT broker with a journal owes its clients (I11), broken in one place at a time."""

from msgspec import Struct

from verify.oracle.evidence import Evidence
from verify.oracle.judgement import Judgement
from verify.oracle.mqtt_judge import judge_mqtt
from verify.oracle.observations import (
    PublishAcknowledged,
    PublishDelivered,
    RetainedRead,
    SessionOpened,
)

KEPT, RETAINED = "chaos/kept/0", "chaos/retained/0"
T = 1_790_000_000.0


def acknowledged(number: int, topic: str = KEPT, *, t: float = T + 1.0) -> Struct:
    return PublishAcknowledged(t=t, topic=topic, number=number, retained=topic == RETAINED)


def delivered(number: int, topic: str = KEPT) -> Struct:
    return PublishDelivered(t=T + 2.0, client="kept-1", topic=topic, number=number)


def opened(*, present: bool) -> Struct:
    return SessionOpened(t=T, client="kept-1", present=present)


def read(number: int | None) -> Struct:
    """What is retained is read; the reader asked at T + 5."""
    return RetainedRead(t=T + 5.0, numbers={} if number is None else {RETAINED: number})


FIRST = opened(present=False)


def judged(*rows: Struct) -> Judgement:
    evidence, judgement = Evidence(), Judgement()
    evidence.take_all(rows)  # type: ignore[arg-type]
    judge_mqtt(evidence, judgement)
    assert judgement.violations.keys() <= {"I11"}
    return judgement


def blamed(*rows: Struct) -> list[str]:
    """What is wrong, besides that nothing retained was read."""
    return judged(*rows, read(None)).violations.get("I11", [])


def test_what_came_and_came_again_in_a_session_that_stayed_is_right() -> None:
    rows = (acknowledged(1), acknowledged(2), delivered(1), delivered(2), delivered(1))
    assert blamed(FIRST, *rows, opened(present=True)) == []


def test_what_was_acknowledged_and_never_came_is_lost() -> None:
    judgement = judged(FIRST, acknowledged(1), acknowledged(2), delivered(2), read(None))
    assert judgement.violations["I11"] == [
        f"kept-1 never got {KEPT} 1, acknowledged at {T + 1.0:.3f}"
    ]
    assert judgement.lost == 1


def test_the_same_number_on_another_topic_does_not_count() -> None:
    assert len(blamed(FIRST, acknowledged(1), delivered(1, "chaos/kept/1"))) == 1


def test_what_was_not_acknowledged_may_come_or_not() -> None:
    assert blamed(FIRST, acknowledged(3), delivered(2), delivered(3)) == []


def test_every_client_with_a_session_is_owed_all() -> None:
    other = SessionOpened(t=T, client="kept-2", present=False)
    (found,) = blamed(FIRST, other, acknowledged(1), delivered(1))
    assert found.startswith("kept-2 never got")


def test_a_session_that_is_not_there_again_was_forgotten() -> None:
    judgement = judged(FIRST, opened(present=True), opened(present=False))
    assert judgement.violations["I11"] == [f"the session of kept-1 was forgotten by {T:.3f}"]


def test_what_comes_first_comes_in_order_on_each_topic() -> None:
    assert blamed(FIRST, delivered(3), delivered(1), delivered(2)) == [
        f"kept-1 got {KEPT} 1 after 3",
        f"kept-1 got {KEPT} 2 after 3",
    ]
    assert blamed(FIRST, delivered(2), delivered(1, "chaos/kept/1")) == []


def test_what_was_acknowledged_last_before_a_reader_asked_is_retained() -> None:
    rows = (acknowledged(4, RETAINED), acknowledged(8, RETAINED, t=T + 4.0))
    assert judged(FIRST, *rows, read(8)).passed
    for older, shown in ((4, 4), (None, 0)):
        judgement = judged(*rows, read(older), read(older))
        assert judgement.violations["I11"] == [
            f"{RETAINED} 8 was acknowledged, {shown} is retained"
        ]


def test_what_is_retained_may_be_newer_than_what_was_acknowledged() -> None:
    assert judged(acknowledged(4, RETAINED), read(8)).passed
    later = acknowledged(8, RETAINED, t=T + 6.0)
    assert judged(acknowledged(4, RETAINED), read(4), later).passed


def test_a_run_in_which_nobody_could_read_what_is_retained_proves_nothing_of_it() -> None:
    assert judged(acknowledged(4, RETAINED)).violations["I11"] == [
        "nobody could read what is retained"
    ]
