"""The server's side of a session, played with the codec."""

import mqtt5
from mqtt5 import PublishPacket, QoS

from broker.mqtt import Message
from broker.mqtt.outbound import Outcome, Publication
from broker.mqtt.session import Session
from broker.mqtt.session_events import Closed, Event, SessionConfig

QOS1 = QoS.AT_LEAST_ONCE
GRANTED = mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE
PINGRESP = mqtt5.PingRespPacket().write()


def packets_in(data: bytes) -> list[mqtt5.Packet]:
    found, view = [], memoryview(data)
    while view:
        packet, size = mqtt5.read(view)
        found.append(packet)
        view = view[size:]
    return found


def written(session: Session, now: float = 0.0) -> list[mqtt5.Packet]:
    found: list[mqtt5.Packet] = []
    while data := session.take(now):
        found += packets_in(data)
    return found


def publishes(session: Session) -> list[PublishPacket]:
    return [packet for packet in written(session) if isinstance(packet, PublishPacket)]


def session_of(**settings: object) -> Session:
    return Session(SessionConfig(client_id="c", **settings))  # type: ignore[arg-type]


def go_online(session: Session, connack: mqtt5.ConnAckPacket | None = None) -> list[Event]:
    session.connect(0.0)
    written(session)
    return session.receive((connack or mqtt5.ConnAckPacket()).write(), 0.0)


def online(**settings: object) -> Session:
    session = session_of(**settings)
    go_online(session)
    return session


def closed_with(events: list[Event]) -> Exception:
    assert isinstance(events[-1], Closed)
    return events[-1].error


def publish(session: Session, *payloads: bytes, qos: int = 1) -> list[tuple[bytes, Outcome]]:
    outcomes: list[tuple[bytes, Outcome]] = []
    for payload in payloads:

        def settle(outcome: Outcome, payload: bytes = payload) -> None:
            outcomes.append((payload, outcome))

        session.publish(Publication(Message("t", payload, qos), settle))
    return outcomes


def delivery(packet_id: int) -> bytes:
    return PublishPacket("t", b"x", qos=QOS1, packet_id=packet_id).write()


def suback(session: Session, packet_id: int, *codes: mqtt5.SubAckReasonCode) -> list[Event]:
    return session.receive(mqtt5.SubAckPacket(packet_id, list(codes)).write(), 0.0)
