"""The group around an incident: its members, their names, and what a reply changes."""

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from broker.errors import Code, Rejected
from schemas.ids import group_event_id, made_at_ms
from schemas.messages import GroupEvent, GroupEventKind, GroupRole, Reply, ReplyKind

POLICE, NABIJ = "police", "nabij"
DESK_NAMES = (POLICE, NABIJ)  # senders that are no participants
_REPORTER, _HELPER = "reporter-", "helper-"


class Part(enum.StrEnum):
    """What a participant is to the incident."""

    ALERTED = "alerted"
    REPORTER = "reporter"
    HELPER = "helper"
    LEFT = "left"


class Member(Struct, frozen=True):
    """One person of an incident. `name` is given at the first joining and is known only within it.

    `hears_from` is the sequence of the first group event since they last joined, `replied_ms` when
    they made the reply that counts (Unix ms).
    """

    part: Part
    name: str = ""
    eta_s: int | None = None
    on_scene: bool = False
    hears_from: int = 1
    replied_ms: int = 0

    @property
    def in_group(self) -> bool:
        """Whether they receive group events and may send messages."""
        return self.part in (Part.REPORTER, Part.HELPER)

    @property
    def role(self) -> GroupRole:
        """The role in which they speak: that in which they first joined."""
        return GroupRole.REPORTER if self.name.startswith(_REPORTER) else GroupRole.RESPONDER

    @property
    def author(self) -> "Author":
        """The author of what they say."""
        return Author(self.name, self.role)


def reporter(people: Mapping[str, Member], user: str, *, hears_from: int = 1) -> Member:
    """Return the member that `user`, who is not in the group of `people`, becomes by a report.

    A former member comes back under the same name and in the same role, and gets group events from
    number `hears_from` on. Who had accepted and left does not help again: that takes a reply.
    """
    known = people.get(user, Member(part=Part.ALERTED))
    name = known.name or f"{_REPORTER}{_next(people, _REPORTER)}"
    return replace(known, part=Part.REPORTER, name=name, eta_s=None, hears_from=hears_from)


def _next(people: Mapping[str, Member], prefix: str) -> int:
    names = (member.name for member in people.values() if member.name.startswith(prefix))
    return 1 + max((int(name.removeprefix(prefix)) for name in names), default=0)


def replied(
    people: Mapping[str, Member], user: str, reply: Reply, *, sequence: int, now_ms: int
) -> tuple[Member, GroupEventKind | None]:
    """Return `user` after `reply`, and the group event that tells of it (None: none does).

    `sequence` is that of the group's next event. A member who joins with it gets no event before
    it. Two replies may come in another order than they were made in (workers share them): one that
    was made before the one that counts changes nothing.

    Raises:
        Rejected: the user was never alerted.
    """
    member = people.get(user)
    if member is None:
        raise Rejected(Code.NOT_ALERTED, "$.incident", "You were not alerted to this incident.")
    made_ms = min(made_at_ms(reply.id), now_ms)
    if reply.kind is ReplyKind.SEEN or made_ms < member.replied_ms:
        return member, None
    after, event = _after(people, member, reply, sequence)
    return replace(after, replied_ms=made_ms), event


def _after(
    people: Mapping[str, Member], member: Member, reply: Reply, sequence: int
) -> tuple[Member, GroupEventKind | None]:
    match reply.kind:
        case ReplyKind.ACCEPTED:
            joined = _joined(people, member, sequence)
            event = GroupEventKind.MOVED if member.in_group else GroupEventKind.JOINED
            # A reporter, too, helps when they say that they come.
            return replace(joined, part=Part.HELPER, eta_s=reply.eta_s, on_scene=False), event
        case ReplyKind.ON_SCENE:
            joined = _joined(people, member, sequence)
            event = GroupEventKind.MOVED if member.in_group else GroupEventKind.JOINED
            # A reporter may only say where they are; who came as a helper is there to help.
            part = Part.HELPER if joined.role is GroupRole.RESPONDER else joined.part
            return replace(joined, part=part, eta_s=0, on_scene=True), event
        case ReplyKind.DECLINED | ReplyKind.LEFT:
            if member.in_group:
                return replace(member, part=Part.LEFT, on_scene=False), GroupEventKind.LEFT
    return member, None


def _joined(people: Mapping[str, Member], member: Member, hears_from: int) -> Member:
    if member.in_group:
        return member
    if member.name:  # came back: the same name again
        part = Part.REPORTER if member.role is GroupRole.REPORTER else Part.HELPER
        return replace(member, part=part, hears_from=hears_from)
    name = f"{_HELPER}{_next(people, _HELPER)}"
    return replace(member, part=Part.HELPER, name=name, hears_from=hears_from)


def speaker(people: Mapping[str, Member], user: str) -> Member:
    """Return the member that `user` speaks as.

    Raises:
        Rejected: the user is not in the group.
    """
    member = people.get(user)
    if member is None:
        raise Rejected(Code.NOT_ALERTED, "$.incident", "You were not alerted to this incident.")
    if not member.in_group:
        raise Rejected(
            Code.NOT_A_MEMBER, "$.incident", "You are not in this group: accept the alert first."
        )
    return member


def members(people: Mapping[str, Member]) -> list[str]:
    """Return the users who are in the group, in order of name."""
    return sorted(user for user, member in people.items() if member.in_group)


def hearers(people: Mapping[str, Member], sequence: int) -> list[str]:
    """Return the members who get the event `sequence`: those who had joined by then."""
    return [user for user in members(people) if people[user].hears_from <= sequence]


def helpers(people: Mapping[str, Member]) -> int:
    """Return how many have accepted and have not left."""
    return sum(member.part is Part.HELPER for member in people.values())


class Group(NamedTuple):
    """A group at the moment of an event or, without a group, one reporter's conversation.

    `incident` is the id by which its members know it, `sequence` that of the event.
    """

    incident: UUID
    people: Mapping[str, Member]
    sequence: int


class Author(NamedTuple):
    """The author of a group event: the name in the group, and the role."""

    name: str
    role: GroupRole


def event(
    group: Group,
    cause: object,
    kind: GroupEventKind,
    author: Author,
    *,
    at: datetime,
    text: str | None = None,
    eta_s: int | None = None,
) -> GroupEvent:
    """Return the group event that follows from `cause` (a message's id, or a word)."""
    people = group.people
    return GroupEvent(
        id=group_event_id(group.incident, cause),
        incident=group.incident,
        sequence=group.sequence,
        kind=kind,
        at=at,
        member=author.name,
        role=author.role,
        members=len(members(people)),
        on_scene=sum(member.on_scene for member in people.values()),
        eta_s=eta_s,
        text=text,
    )
