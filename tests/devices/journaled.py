"""A participant with a journal, what it sends, and what the test answers in the services' place."""

from typing import Any

from devices.device_inbox import Listeners
from devices.participant import Broker, Journal, Participant
from schemas.messages import Position, Subject
from tests.devices.options import words_of

KORENMARKT = Position(lat=51.0543, lon=3.7217)

WITHIN_S = 10.0


def sent(services: Any, subject: Subject) -> list[Any]:
    return [message for message in services.received if message.subject is subject]


def device(broker: Broker, journal: Journal, **options: Any) -> Participant:
    options = {"receipt_timeout_s": 5.0, "session_expiry_s": 0, "connect_timeout_s": 1.0, **options}
    return Participant(
        "ann", "secret-of-ann", broker, journal=journal, **words_of(Listeners, options)
    )
