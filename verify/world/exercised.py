"""Which topics of the contract a run exercised: derived from `schemas/topics.py`.

A topic that a service subscribes to must have been sent, accepted and refused; any other heard.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

import msgspec

import services
from schemas.messages import DeliveryReceipt, Outcome, Receipt, Subject
from schemas.topics import TOPICS, Topic

_SENT, _HEARD = "sent", "heard"
_receipt = msgspec.json.Decoder(Receipt)


@cache
def sent_topics() -> tuple[Topic[Any], ...]:
    """Return the topics that devices and desks write: those that a service subscribes to."""
    every = [services.load(name) for name in services.ALL]
    read = {one.topic.template for service in every for one in service.subscriptions}
    return tuple(topic for topic in TOPICS if topic.template in read)


@cache
def topic_of(topic: str) -> Topic[Any] | None:
    """Return which row of the contract an MQTT topic is of."""
    return next((one for one in TOPICS if one.parse(topic) is not None), None)


def wanted() -> Iterator[tuple[str, str]]:
    """Yield each topic's template with what must happen on it."""
    for topic in TOPICS:
        if topic not in sent_topics():
            yield topic.template, _HEARD
            continue
        yield topic.template, _SENT
        yield topic.template, Outcome.REJECTED
        if topic.payload is not DeliveryReceipt:  # one that is right is answered by silence
            yield topic.template, Outcome.ACCEPTED


class Exercised:
    """Counts what happened on each topic: every message of a run goes to `take`."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def take(self, topic: str, payload: bytes) -> None:
        """Count one message; of a receipt also what it says of the topic that it is about."""
        found = topic_of(topic)
        if found is None or not payload:
            return
        self.counts[found.template, _SENT if found in sent_topics() else _HEARD] += 1
        if found.payload is Receipt:
            receipt = _receipt.decode(payload)
            if (about := _about(found, receipt)) is not None:
                self.counts[about.template, receipt.outcome] += 1

    def missing(self, exempt: Collection[str] = ()) -> list[str]:
        """Return what did not happen, in words; `exempt` are templates."""
        return [
            f"{template}: never {what}"
            for template, what in wanted()
            if template not in exempt and not self.counts[template, what]
        ]


def _about(answers: Topic[Any], receipt: Receipt) -> Topic[Any] | None:
    """Return the topic that a receipt is about: one that is answered there, by its subject."""
    return _answered().get((answers.template, receipt.subject))


@cache
def _answered() -> dict[tuple[str, Subject], Topic[Any]]:
    return {
        (one.receipt.template, one.subject): one
        for one in sent_topics()
        if one.receipt is not None and one.subject is not None
    }
