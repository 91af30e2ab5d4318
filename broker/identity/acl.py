"""Who may read and write which topics, derived from the contract: the lines of Mosquitto's `acl_file`.

A role may write the branches of the topics that it sends, and read those of the topics that it
receives. The branch of `u/{user}/up/report` is `u/{user}/up`: a new topic in a known branch needs
no new rights.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from broker.identity.principal import OWN_LEVEL
from schemas.roles import Role
from schemas.topics import ROOT, TOPICS, Topic

_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")
_SERVICES = (f"readwrite {ROOT}/#", "read $SYS/#")


def branches(role: Role, topics: Iterable[Topic[Any]] = TOPICS) -> tuple[list[str], list[str]]:
    """Return the branches that `role` reads, and those that it writes, as templates.

    Raises:
        ValueError: one of them is not the role's own.
    """
    rows = list(topics)
    return (
        _outermost(role, (one for one in rows if one.receiver is role)),
        _outermost(role, (one for one in rows if one.sender is role)),
    )


def _outermost(role: Role, topics: Iterable[Topic[Any]]) -> list[str]:
    found = list(dict.fromkeys(_branch_of(topic, role) for topic in topics))
    return [
        branch
        for branch in found
        if not any(branch.startswith(f"{other}/") for other in found if other != branch)
    ]


def _branch_of(topic: Topic[Any], role: Role) -> str:
    """Return the levels of a topic before the one that names it."""
    branch, own = topic.template.rpartition(f"/{topic.name}")[0], OWN_LEVEL.get(role)
    if not branch or (own is not None and f"{{{own}}}" not in branch):
        raise ValueError(
            f"{topic.template}: every {role} would have the branch {branch or '#'!r}: "
            f"it needs the level {{{own}}} before {topic.name!r}"
        )
    return branch


def rights(role: Role, own: str | None = None, topics: Iterable[Topic[Any]] = TOPICS) -> list[str]:
    """Return the rights of an account; `own` is its own level of the topics (None: every level)."""
    if role is Role.SERVICE:
        return [*_SERVICES]
    level = OWN_LEVEL.get(role)
    levels = {level: own} if level and own else {}
    read, written = ([_filter(one, levels) for one in some] for some in branches(role, topics))
    every = dict.fromkeys([*read, *written])
    return [f"{_verb(one in read, one in written)} {one}" for one in every]


def _verb(*both: bool) -> str:
    match both:
        case (True, True):
            return "readwrite"
        case (True, _):
            return "read"
    return "write"


def _filter(branch: str, levels: Mapping[str, str]) -> str:
    return f"{ROOT}/{_PLACEHOLDER.sub(lambda found: levels.get(found[1], '+'), branch)}/#"


def patterns(topics: Iterable[Topic[Any]] = TOPICS) -> list[str]:
    """Return the lines for all participants: Mosquitto puts the account's name for `%u`."""
    return [f"pattern {right}" for right in rights(Role.PARTICIPANT, "%u", topics)]


def acl_lines(accounts: Iterable[tuple[str, Role, str | None]]) -> Sequence[str]:
    """Return the lines of an ACL file: for each account its name, role, and own level of the topics."""
    lines = patterns()
    for username, role, own in accounts:
        if role is not Role.PARTICIPANT:
            granted = [f"topic {right}" for right in rights(role, own)]
            lines += [f"user {username}", *granted]
    return lines
