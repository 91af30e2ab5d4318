"""The roles on the wire: the ends of a topic, and of accounts."""

import enum


class Role(enum.StrEnum):
    """One end of a topic. Its text is its name in documents.

    For most roles a topic level names the account: the user, the police zone, the municipality.
    """

    PARTICIPANT = "participant"
    POLICE_DESK = "operations"
    CITY_DESK = "city desk"
    OPERATOR = "operators"
    SERVICE = "services"
