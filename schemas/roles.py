"""Who is on the wire: the ends of a topic, and what an account may be."""

import enum


class Role(enum.StrEnum):
    """One end of a topic. Its text is what documents call it.

    A topic level names the account of most: the user, the police zone, the municipality.
    """

    PARTICIPANT = "participant"
    POLICE_DESK = "operations"
    CITY_DESK = "city desk"
    OPERATOR = "operators"
    SERVICE = "services"
