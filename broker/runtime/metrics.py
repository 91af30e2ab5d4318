"""What Prometheus sees: how many reports and alerts passed each stage, and how long it took.

With PROMETHEUS_MULTIPROC_DIR set (the supervisor does) every worker writes to files that
the supervisor's /metrics adds up.
"""

import enum
from collections import Counter as TallyOf
from collections.abc import Iterable

from prometheus_client import Counter, Histogram

_BUCKETS = (
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.02,
    0.03,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    10,
)


class Stage(enum.StrEnum):
    """The stages of a report's way, each timed from the moment that its message came in.

    `alerted` is timed from the commit instead, and once per incident and wave; so is `delivered`,
    which a desk says of an escalation or case.
    """

    RECEIVED = "received"
    COMMITTED = "committed"
    ESCALATED = "escalated"
    DELIVERED = "delivered"
    ALERTED = "alerted"


_PASSED = Counter("nabij_stage", "Reports that passed a stage (alerted: alerts sent)", ["stage"])
_SECONDS = Histogram("nabij_stage_seconds", "Time to a stage", ["stage"], buckets=_BUCKETS)
_MESSAGES = Counter("nabij_messages", "MQTT messages handled", ["service", "topic"])
REJECTED = Counter("nabij_rejected", "Messages rejected", ["service", "code"])
BAD_NAMES = Counter("nabij_bad_names", "Messages of accounts whose names are not ours", ["service"])
DEAD_LETTERS = Counter("nabij_dead_letters", "Messages dead-lettered", ["service"])
RETRIES = Counter("nabij_retries", "Tries again after something was unavailable", ["service"])
UNASSIGNED = Counter("nabij_unassigned", "Reports outside every zone", ["kind"])
REFUSED = Counter("nabij_refused", "Publishes that the MQTT broker refused", ["service", "reason"])
SESSIONS_ADOPTED = Counter(
    "nabij_sessions_adopted", "MQTT sessions of workers that were gone, taken over", ["service"]
)
PRESENCE = Counter("nabij_presence_updates", "Presence updates applied")

_STAGES = {stage: (_PASSED.labels(stage), _SECONDS.labels(stage)) for stage in Stage}

_UNTOLD = 10_000  # most that is kept where nobody tells

_passed: list[tuple[Stage, float, int]] = []
_handled: TallyOf[tuple[str, str]] = TallyOf()


def prepare(service: str, topics: Iterable[str]) -> None:
    """Show this service's counters from the start, at 0: else an alarm misses the first step."""
    for counter in (DEAD_LETTERS, RETRIES, SESSIONS_ADOPTED):
        counter.labels(service)
    for topic in topics:
        _MESSAGES.labels(service, topic)


def passed(stage: Stage, seconds: float, count: int = 1) -> None:
    """Count `count` that passed `stage`, after `seconds`; told by the next `tell`."""
    _passed.append((stage, seconds, count))
    if len(_passed) == _UNTOLD:
        tell()


def handled(service: str, topic: str, count: int = 1) -> None:
    """Count MQTT messages on a topic that a service takes up; told by the next `tell`."""
    _handled[service, topic] += count


def tell() -> None:
    """Tell Prometheus what was counted: its client takes a tenth of a report's time otherwise."""
    several, _passed[:] = list(_passed), ()
    for stage, seconds, count in several:
        counter, histogram = _STAGES[stage]
        counter.inc(count)
        histogram.observe(max(0.0, seconds))
    for (service, topic), count in _handled.items():
        _MESSAGES.labels(service, topic).inc(count)
    _handled.clear()
