"""Judges what docs/protocol.md says of desks, groups, short alerts and what cannot be handled.

From the logs alone, as `verify/simulation/simulation_judge.py`, which says who reported what.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from uuid import UUID

from schemas.messages import Brief, GroupEventKind, Outcome, ReplyKind
from schemas.taxonomy import PolicyFile
from verify.oracle.evidence import Evidence
from verify.oracle.observations import GroupEventSeen
from verify.simulation.simulation_logs import Logs

_AGAIN_S = 8.0  # what no desk has confirmed for so long has been sent again, whatever died
_AT_ONCE_S = 2.0  # after its receipt a sync has brought all
_ALARM_S = 8.0  # so late at most the alarm is raised
_BRIEF_BYTES = 255
_TAKEN_UP_S = 5.0  # an event may be of so long before its commit, if its handler had to wait

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
    joined = _joined_at(evidence)
    for event in evidence.groups:
        if event.kind is GroupEventKind.CLOSED or event.incident not in groups:
            continue
        if event.user in groups[event.incident]:
            is_before = event.at < groups[event.incident][event.user] - _TAKEN_UP_S
        else:
            is_before = event.sequence < joined.get((event.user, event.incident), math.inf)
        if is_before:
            yield f"{event.user} heard event {event.sequence} of {event.incident} from before joining"


def who_left_hears_nothing(evidence: Evidence) -> Iterator[str]:
    """Who left hears the end alone, unless they come back: by a report, or as someone who joins."""
    joined, left = _own(evidence, GroupEventKind.JOINED), _own(evidence, GroupEventKind.LEFT)
    reported: dict[tuple[str, UUID], float] = {}
    for report, receipt in evidence.accepted().items():
        if receipt.incident is not None and (created := evidence.created.get(report)):
            key = created.user, receipt.incident
            reported[key] = max(created.t, reported.get(key, -math.inf))
    for event in evidence.groups:
        key = event.user, event.incident
        gone = left.get(key)
        if gone is None or event.kind is GroupEventKind.CLOSED:
            continue
        since = gone[-1].sequence
        came_back = any(one.sequence > since for one in joined.get(key, ()))
        if event.sequence > since and not came_back and reported.get(key, 0.0) < gone[0].at:
            yield f"{event.user} heard event {event.sequence} of {event.incident} after leaving"


def members_hear_all(evidence: Evidence, openers: Mapping[UUID, str]) -> Iterator[str]:
    """Who opened an incident hears all of its group; who joined it all from then on, or till left.

    Who says that they leave, and never hears that they have, is not judged.
    """
    last: dict[UUID, int] = defaultdict(int)
    heard: dict[tuple[str, UUID], set[int]] = defaultdict(set)
    for event in evidence.groups:
        last[event.incident] = max(last[event.incident], event.sequence)
        heard[event.user, event.incident].add(event.sequence)
    leaving = {
        (said.user, said.incident)
        for said in evidence.sent.values()
        if said.reply is ReplyKind.LEFT
    }
    left = _own(evidence, GroupEventKind.LEFT)
    first = _joined_at(evidence)
    first |= {(opener, incident): 1 for incident, opener in openers.items()}
    for (user, incident), since in first.items():
        gone = left.get((user, incident))
        if gone is None and (user, incident) in leaving:
            continue
        until = gone[0].sequence if gone else last[incident]
        if lacking := set(range(since, until + 1)) - heard[user, incident]:
            yield f"{user} never heard events {sorted(lacking)} of the group of {incident}"


def _joined_at(evidence: Evidence) -> dict[tuple[str, UUID], int]:
    """Return the number of the event by which each user joined each incident."""
    joined = _own(evidence, GroupEventKind.JOINED)
    return {key: events[0].sequence for key, events in joined.items()}


def _own(evidence: Evidence, kind: GroupEventKind) -> dict[tuple[str, UUID], list[GroupEventSeen]]:
    """Return the events of this kind that each user heard of themselves, by incident, in order."""
    found: dict[tuple[str, UUID], list[GroupEventSeen]] = defaultdict(list)
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
