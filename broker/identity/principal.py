"""Who sent a message: a role and its own level of the topic, which the MQTT broker has checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.roles import Role
from schemas.topics import Topic

# The topic level that names the owner. A role without one is bound to none.
OWN_LEVEL = {
    Role.PARTICIPANT: "user",
    Role.POLICE_DESK: "zone",
    Role.CITY_DESK: "municipality",
}


@dataclass(frozen=True, slots=True)
class Principal:
    """The sender of a message; `name` is the user, the police zone or the municipality."""

    role: Role
    name: str

    @property
    def user(self) -> str:
        """The participant's user name; LookupError if it is not a participant."""
        return self._name_as(Role.PARTICIPANT)

    @property
    def zone(self) -> str:
        """The police desk's zone; LookupError if it is not a police desk."""
        return self._name_as(Role.POLICE_DESK)

    @property
    def municipality(self) -> str:
        """The city desk's municipality; LookupError if it is not a city desk."""
        return self._name_as(Role.CITY_DESK)

    def _name_as(self, role: Role) -> str:
        if self.role is not role:
            raise LookupError(f"the sender is {self.role.value}, not {role.value}")
        return self.name


NOBODY = Principal(Role.SERVICE, "")  # of events and deadlines, which have no sender


def principal_of(topic: Topic[Any], levels: Mapping[str, str]) -> Principal:
    """Return who sent a message on `topic`, whose levels are these."""
    return Principal(topic.sender, levels[OWN_LEVEL[topic.sender]])
