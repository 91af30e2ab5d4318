"""Reason codes (section 2.4): one enum for all packets, whose numbers agree.

Those of the codec can be neither hashed nor compared with `<`, whatever its stub says.
"""

import enum


class Reason(enum.IntEnum):
    """Why something was done or not; 128 and above are failures."""

    SUCCESS = 0
    NO_MATCHING_SUBSCRIBERS = 16
    NO_SUBSCRIPTION_EXISTED = 17
    UNSPECIFIED_ERROR = 128
    MALFORMED_PACKET = 129
    PROTOCOL_ERROR = 130
    UNSUPPORTED_PROTOCOL_VERSION = 132
    CLIENT_ID_NOT_VALID = 133
    BAD_USER_NAME_OR_PASSWORD = 134
    NOT_AUTHORIZED = 135
    SERVER_BUSY = 137
    BAD_AUTHENTICATION_METHOD = 140
    KEEP_ALIVE_TIMEOUT = 141
    SESSION_TAKEN_OVER = 142
    TOPIC_FILTER_INVALID = 143
    TOPIC_NAME_INVALID = 144
    PACKET_ID_NOT_FOUND = 146
    RECEIVE_MAX_EXCEEDED = 147
    TOPIC_ALIAS_INVALID = 148
    PACKET_TOO_LARGE = 149
    QUOTA_EXCEEDED = 151
    PAYLOAD_FORMAT_INVALID = 153
    MAX_CONNECT_TIME = 160

    @property
    def is_failure(self) -> bool:
        """Whether it was not done."""
        return self >= Reason.UNSPECIFIED_ERROR
