"""I11: what an MQTT broker with a journal has acknowledged reaches every session that it keeps.

Judged by clients of which nobody sends anything again: all that was acknowledged is due to each of
them, since they subscribed before the first of it.
"""

from verify.oracle.evidence import Evidence
from verify.oracle.judgement import Judgement


def judge_mqtt(evidence: Evidence, judgement: Judgement) -> None:
    """Judge its sessions, the messages that wait in them, and what it retains."""
    _sessions(evidence, judgement)
    had = _had(evidence, judgement)
    for message in evidence.acknowledged:
        for client, messages in had.items():
            if not message.retained and (message.topic, message.number) not in messages:
                judgement.lose(
                    "I11",
                    f"{client} never got {message.topic} {message.number},"
                    f" acknowledged at {message.t:.3f}",
                )
    _retained(evidence, judgement)


def _sessions(evidence: Evidence, judgement: Judgement) -> None:
    """After its first connection a client's session is always there."""
    known: set[str] = set()
    for opened in evidence.sessions:
        if opened.client in known and not opened.present:
            judgement.lose("I11", f"the session of {opened.client} was forgotten by {opened.t:.3f}")
        known.add(opened.client)


def _had(evidence: Evidence, judgement: Judgement) -> dict[str, set[tuple[str, int]]]:
    """Return what came to each client. What comes again may; what comes first comes in order."""
    had: dict[str, set[tuple[str, int]]] = {one.client: set() for one in evidence.sessions}
    latest: dict[tuple[str, str], int] = {}
    for row in evidence.delivered:
        client, topic, number = row.client, row.topic, row.number
        messages = had.setdefault(client, set())
        if (topic, number) in messages:
            continue
        messages.add((topic, number))
        before = latest.get((client, topic), 0)
        if number < before:
            judgement.blame("I11", f"{client} got {topic} {number} after {before}")
        latest[client, topic] = max(number, before)
    return had


def _retained(evidence: Evidence, judgement: Judgement) -> None:
    """A subscriber gets what was acknowledged last before it asked, or what came later."""
    if evidence.acknowledged and not evidence.retained_reads:
        judgement.blame("I11", "nobody could read what is retained")
    missed: set[tuple[str, int]] = set()  # each is told once, though several may miss it
    for read in evidence.retained_reads:
        last = {
            one.topic: one.number
            for one in evidence.acknowledged
            if one.retained and one.t < read.t
        }
        for topic, number in last.items():
            found = read.numbers.get(topic, 0)
            if found < number and (topic, number) not in missed:
                missed.add((topic, number))
                judgement.lose("I11", f"{topic} {number} was acknowledged, {found} is retained")
