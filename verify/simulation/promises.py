"""Judges what docs/protocol.md says of desks, groups, short alerts and what cannot be handled.

From the logs alone, as `verify/simulation/simulation_judge.py`, which says who reported what.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from schemas.messages import Brief, GroupEventKind, Outcome, ReplyKind
from schemas.taxonomy import PolicyFile
from verify.oracle.evidence import Evidence
from verify.oracle.observations import GroupEventSeen, MessageSent
from verify.simulation.simulation_logs import Logs

_AGAIN_S = 8.0  # what no desk has confirmed for so long has been sent again, whatever died
_AT_ONCE_S = 2.0  # after its receipt a sync has brought all
_ALARM_S = 8.0  # so late at most the alarm is raised
_BRIEF_BYTES = 255
_TAKEN_UP_S = 5.0  # an event may be of so long before its commit, if its handler had to wait
_JOINING = (ReplyKind.ACCEPTED, ReplyKind.ON_SCENE)
_LEAVING = (ReplyKind.LEFT, ReplyKind.DECLINED)

_Key = tuple[str, UUID]  # a user, and the incident of a group
Reporters = Mapping[UUID, Mapping[str, float]]  # of each incident's group: who, and since when


# -- desks ---------------------------------------------------------------------------------------


def desks_get_what_they_lack(logs: Logs, evidence: Evidence) -> Iterator[str]:
    """What was committed well before a desk's sync has come when that is answered."""
    for (kind, zone, identifier), (made_at, heard_at) in _first_heard(evidence).items():
        for sync in logs.desk.syncs.values():
            if (sync.kind, sync.zone) != (kind, zone) or sync.answered_at is None:
                continue
            if made_at < sync.sent_at - _AGAIN_S and heard_at > sync.answered_at + _AT_ONCE_S:
                yield f"the sync of {kind}/{zone} at {sync.sent_at:.1f} did not bring {identifier}"


def operators_know_who_is_not_there(
    logs: Logs, evidence: Evidence, policy: PolicyFile
) -> Iterator[str]:
    """What no desk has for too long is told to operators."""
    unattended_s = policy.timers.unattended_s
    for (kind, zone, identifier), (made_at, heard_at) in _first_heard(evidence).items():
        if heard_at - made_at > unattended_s + _ALARM_S:
            told = [
                (at, one.stands)
                for at, one in logs.operator.alarms
                if (one.kind, one.zone) == (kind, zone)
            ]
            before = [stands for at, stands in told if at <= made_at][-1:]
            if not any([*before, *(stands for at, stands in told if made_at < at <= heard_at)]):
                yield f"no operator heard that {kind}/{zone} lacked {identifier} for long"


def _first_heard(evidence: Evidence) -> dict[tuple[str, str, UUID], tuple[float, float]]:
    """Return when each message was committed, and when its desk heard it first."""
    found: dict[tuple[str, str, UUID], tuple[float, float]] = {}
    for told in evidence.escalations:
        found.setdefault(("police", told.zone, told.id), (told.committed_at, told.t))
    for case in evidence.cases:
        found.setdefault(("city", case.municipality, case.id), (case.committed_at, case.t))
    return found


# -- groups --------------------------------------------------------------------------------------


def history_begins_at_joining(evidence: Evidence, groups: Reporters) -> Iterator[str]:
    """Nobody hears what was before they joined, or reported; who did neither hears the end alone."""
    joined = _own(evidence, GroupEventKind.JOINED)
    for event in evidence.groups:
        if event.kind is GroupEventKind.CLOSED or event.incident not in groups:
            continue
        since = groups[event.incident].get(event.user, math.inf) - _TAKEN_UP_S
        key = event.user, event.incident
        has_joined = any(one.sequence <= event.sequence for one in joined.get(key, ()))
        if not has_joined and event.at < since:
            yield f"{event.user} heard event {event.sequence} of {event.incident} from before joining"


def who_left_hears_nothing(evidence: Evidence) -> Iterator[str]:
    """Who left hears the end alone, and what is after they have come back: joined, or reported."""
    joined, left = _own(evidence, GroupEventKind.JOINED), _own(evidence, GroupEventKind.LEFT)
    told_by, returns = _told_by(evidence), _returns(evidence)
    for event in evidence.groups:
        key = event.user, event.incident
        gone = [one for one in left.get(key, ()) if one.sequence < event.sequence]
        if not gone or event.kind is GroupEventKind.CLOSED:
            continue
        again = [one.sequence for one in joined.get(key, ()) if one.sequence > gone[-1].sequence]
        if any(sequence <= event.sequence for sequence in again):
            continue
        happened_by = told_by[event.incident, event.sequence]
        if not any(
            # An acceptance whose joining they hear counts from there on.
            sent_at <= happened_by and done >= gone[-1].at and not (is_reply and again)
            for sent_at, done, is_reply in returns.get(key, ())
        ):
            yield f"{event.user} heard event {event.sequence} of {event.incident} after leaving"


class _Return(NamedTuple):
    """What may bring somebody into a group (again): committed between when it was sent and done."""

    sent_at: float
    done: float
    is_reply: bool


def _returns(evidence: Evidence) -> dict[_Key, list[_Return]]:
    """Return the reports and acceptances of each user about each incident."""
    found: dict[_Key, list[_Return]] = defaultdict(list)
    for report, receipt in evidence.accepted().items():
        if receipt.incident is not None and (created := evidence.created.get(report)):
            back = _Return(created.t, receipt.t, is_reply=False)
            found[created.user, receipt.incident].append(back)
    for key, replies in _replies(evidence).items():
        for said in replies:
            if said.reply in _JOINING:
                done = math.inf if said.done is None else said.done
                found[key].append(_Return(said.t, done, is_reply=True))
    return found


def _told_by(evidence: Evidence) -> dict[tuple[UUID, int], float]:
    """Return by when each event had happened: when anybody heard it, or one that came after it."""
    found: dict[tuple[UUID, int], float] = {}
    last: dict[UUID, float] = {}
    for event in sorted(evidence.groups, key=lambda one: one.sequence, reverse=True):
        last[event.incident] = min(event.t, last.get(event.incident, math.inf))
        found[event.incident, event.sequence] = last[event.incident]
    return found


def leaving_is_told(
    evidence: Evidence, openers: Mapping[UUID, str], *, deaths: int
) -> Iterator[str]:
    """A group hears of each one who leaves it; the one who leaves, too, if no MQTT broker died."""
    leavers: dict[UUID, list[str]] = defaultdict(list)
    replies = _replies(evidence)
    for (user, incident), mine in replies.items():
        opener = openers.get(incident, user)
        stays = opener != user and not any(
            said.reply in _LEAVING for said in replies.get((opener, incident), ())
        )
        if stays or not deaths:
            leavers[incident] += [user] * _certain_leavings(mine)
    told: dict[UUID, set[int]] = defaultdict(set)
    for event in evidence.groups:
        if event.kind is GroupEventKind.LEFT:
            told[event.incident].add(event.sequence)
    for incident, users in leavers.items():
        if len(told[incident]) < len(users):
            yield f"of {users}, who left {incident}, {len(told[incident])} were told of"


def _certain_leavings(replies: Sequence[MessageSent]) -> int:
    """Return how often somebody left who was in the group for sure, by their replies in order.

    Their acceptance was done before. What they said next was sent when they had left: of two
    replies that cross the one made last counts, and the other may change nothing.
    """
    return sum(
        said.reply is ReplyKind.LEFT
        and said.done is not None
        and before.reply in _JOINING
        and before.done is not None
        and before.done <= said.t
        and (after is None or after.t >= said.done)
        for before, said, after in zip(replies, replies[1:], [*replies[2:], None], strict=False)
    )


def _replies(evidence: Evidence) -> dict[_Key, list[MessageSent]]:
    """Return what each user answered to each incident, in the order in which it was sent."""
    found: dict[_Key, list[MessageSent]] = defaultdict(list)
    for said in sorted(evidence.sent.values(), key=lambda one: one.t):
        if said.reply is not None:
            found[said.user, said.incident].append(said)
    return found


def members_hear_all(evidence: Evidence, openers: Mapping[UUID, str]) -> Iterator[str]:
    """Who opened an incident hears all of its group; who joined it all from then on, or till left.

    Who says that they leave, and never hears that they have, is not judged from their last joining.
    """
    last: dict[UUID, int] = defaultdict(int)
    heard: dict[_Key, set[int]] = defaultdict(set)
    for event in evidence.groups:
        last[event.incident] = max(last[event.incident], event.sequence)
        heard[event.user, event.incident].add(event.sequence)
    replies, left = _replies(evidence), _sequences(evidence, GroupEventKind.LEFT)
    joined = _sequences(evidence, GroupEventKind.JOINED)
    for incident, opener in openers.items():
        joined[opener, incident].add(1)
    for (user, incident), begins in joined.items():
        ends = left[user, incident]
        leaving = [one for one in replies.get((user, incident), ()) if one.reply is ReplyKind.LEFT]
        for since in begins:
            until = min((end for end in ends if end > since), default=None)
            if until is None and len(leaving) > len(ends):
                continue
            due = range(since, (last[incident] if until is None else until) + 1)
            if lacking := {*due} - heard[user, incident]:
                yield f"{user} never heard events {sorted(lacking)} of the group of {incident}"


def _sequences(evidence: Evidence, kind: GroupEventKind) -> dict[_Key, set[int]]:
    own = _own(evidence, kind)
    found = {key: {event.sequence for event in events} for key, events in own.items()}
    return defaultdict(set, found)


def _own(evidence: Evidence, kind: GroupEventKind) -> dict[_Key, list[GroupEventSeen]]:
    """Return the events of this kind that each user heard of themselves, by incident, in order."""
    found: dict[_Key, list[GroupEventSeen]] = defaultdict(list)
    for event in sorted(evidence.groups, key=lambda one: one.sequence):
        if event.kind is kind and event.own:
            found[event.user, event.incident].append(event)
    return found


# -- what is garbled, and short alerts -----------------------------------------------------------


def garbled_is_refused(logs: Logs) -> Iterator[str]:
    """What cannot be read is refused, each time."""
    for log in logs.senders:
        for outcomes in log.refused.values():
            if outcomes != {Outcome.REJECTED}:
                yield f"what was garbled was answered with {sorted(outcomes)}"


def short_alerts_say_no_more(logs: Logs) -> Iterator[str]:
    """An alert in short is short, and carries no words of anybody's."""
    for user, log in logs.devices.items():
        for brief in log.briefs:
            more = json.loads(brief).keys() - {*Brief.__struct_fields__}
            if len(brief) > _BRIEF_BYTES or more:
                yield f"{user} got an alert in short of {len(brief)} bytes with {sorted(more)}"


# -- operators -----------------------------------------------------------------------------------


def dead_letters_are_the_poison(logs: Logs) -> Iterator[str]:
    """Operators hear of each message that nobody can handle, and of no other."""
    heard = {letter.payload for _, letter in logs.operator.dead_letters}
    for _, letter in logs.operator.dead_letters:
        if letter.payload not in logs.operator.poison:
            yield f"dead letter: {letter.reason}"
    # It is told once: an MQTT broker that dies then has it from nobody.
    if not logs.rest.deaths:
        for poison in logs.operator.poison - heard:
            yield f"no operator heard of the {poison}"
