"""PUBACK reason codes as a true IntEnum.

The stub of mqtt5 declares its own as an IntEnum, but at run time it can be neither hashed nor
compared with `<`: `reason >= 128` would pass mypy and fail in production.
"""

import enum


class PubAckReasonCode(enum.IntEnum):
    """The outcome of a publish (section 3.4.2.1); 128 and above are failures."""

    SUCCESS = 0
    NO_MATCHING_SUBSCRIBERS = 16
    UNSPECIFIED_ERROR = 128
    IMPLEMENTATION_SPECIFIC_ERROR = 131
    NOT_AUTHORIZED = 135
    TOPIC_NAME_INVALID = 144
    PACKET_ID_IN_USE = 145
    QUOTA_EXCEEDED = 151
    PAYLOAD_FORMAT_INVALID = 153

    @property
    def is_failure(self) -> bool:
        """Whether the MQTT broker did not take the message."""
        return self >= PubAckReasonCode.UNSPECIFIED_ERROR

    @property
    def was_taken(self) -> bool:
        """Whether the message has a subscriber, according to the MQTT broker."""
        return self is PubAckReasonCode.SUCCESS


REASON_OF = {reason.value: reason for reason in PubAckReasonCode}
