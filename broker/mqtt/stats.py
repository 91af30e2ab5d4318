"""What a connection counts, for metrics."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStats:
    """A snapshot for metrics: totals since the start, and what is queued right now."""

    published: int
    received: int
    dropped_qos0: int
    reconnects: int
    waiting: int
    in_flight: int
    inbox: int
