"""What the MQTT broker allows any client, whoever it is (quotas of accounts: `accounts`), and counts."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds. A packet is whole: payload, topic and properties.

    `receive_maximum` bounds what one client may have unacknowledged (3.2.2.3.3), `window_v311` what
    a client of 3.1.1, which cannot say how much it takes, is sent without an acknowledgement;
    `strangers` are connections whose client has not said who it is: of more, the oldest is closed.
    """

    max_packet_bytes: int = 192 * 1024
    receive_maximum: int = 2000
    window_v311: int = 2000
    topic_aliases: int = 16
    max_session_expiry_s: int = 7 * 86400
    connect_timeout_s: float = 10.0
    strangers: int = 10_000
    unwritten_bytes: int = 256 * 1024
    group_queued_bytes: int = 64 << 20
    sys_interval_s: float = 10.0


@dataclass(slots=True)
class Counters:
    """Messages since the start: received of clients, refused to them, and dropped.

    Dropped is what finds its queue full, is too large for its client, or QoS 0 that cannot wait.
    `waits` is how often a client had to wait for the quota of its account.
    """

    received: int = 0
    refused: int = 0
    dropped: int = 0
    waits: int = 0

    def drop(self) -> None:
        """Count a message that was dropped."""
        self.dropped += 1
