"""When a session pings, and when it gives up waiting for the answer."""

import mqtt5

from broker.mqtt.mqtt_errors import ConnectionLost
from broker.mqtt.session_events import State
from tests.mqtt.server import (
    PINGRESP,
    closed_with,
    delivery,
    go_online,
    online,
    session_of,
    written,
)


def test_without_a_keep_alive_nothing_ticks() -> None:
    session = online(keep_alive_s=0)
    assert session.next_tick_at() is None
    assert session.tick(1e9) == []
    assert written(session) == []


def test_the_servers_keep_alive_is_that_of_its_connection_only() -> None:
    session = session_of(keep_alive_s=60)
    go_online(session, mqtt5.ConnAckPacket(server_keep_alive=4))
    session.lost()
    go_online(session)
    assert session.next_tick_at() == 30.0


def test_patience_with_a_ping_is_half_the_keep_alive_and_ten_seconds_at_most() -> None:
    for keep_alive_s, patience_s in ((10, 5.0), (18, 9.0), (20, 10.0), (60, 10.0)):
        session = online(keep_alive_s=keep_alive_s)
        due = session.next_tick_at()
        assert due == keep_alive_s / 2
        assert session.tick(due) == []
        assert session.next_tick_at() == due + patience_s
        assert session.tick(due + patience_s - 0.01) == []
        error = closed_with(session.tick(due + patience_s))
        assert str(error) == f"no answer to a ping for {patience_s:g} s"
        assert isinstance(error, ConnectionLost)
        assert session.state is State.CLOSED


def test_anything_that_is_heard_answers_a_ping() -> None:
    session = online(keep_alive_s=10)
    session.tick(5.0)
    written(session, 5.0)
    session.receive(delivery(1)[:1], 7.0)
    assert session.next_tick_at() == 10.0  # sent at 5, heard at 7
    assert session.tick(10.0) == []
    assert [type(each) for each in written(session, 10.0)] == [mqtt5.PingReqPacket]


def test_who_only_listens_is_pinged_too() -> None:
    session = online(keep_alive_s=10)
    for now in (2.0, 4.0):
        session.receive(PINGRESP, now)
    assert session.next_tick_at() == 5.0
    assert session.take(4.0) == b""  # nothing was sent, so nothing counts as sent
    assert session.next_tick_at() == 5.0


def test_nothing_ticks_before_the_server_has_accepted_us() -> None:
    session = session_of(keep_alive_s=10)
    session.connect(0.0)
    written(session)
    assert session.tick(100.0) == []
    assert written(session) == []
