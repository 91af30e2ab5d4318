"""Judges what docs/protocol.md says of desks, groups, notes, short alerts and what cannot be handled.

From the logs alone, as `verify/simulation/simulation_judge.py`, which says who reported what.
"""

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from uuid import UUID

from schemas.messages import Brief, Case, Escalation, GroupEventKind, Outcome, Receipt
from verify.simulation.simulation_logs import DeviceLog, Logs
from verify.simulation.virtual_time import EPOCH_S

_AGAIN_S = 8.0  # what no desk has confirmed for so long has been sent again, whatever died
_AT_ONCE_S = 2.0  # after its receipt a sync has brought all
_ALARM_S = 8.0  # so late at most the alarm is raised
_BRIEF_BYTES = 255
_TAKEN_UP_S = 5.0  # an event may be of so long before its commit, if its handler had to wait

Reporters = Mapping[UUID, Mapping[str, float]]  # of each incident's group: who, and since when


# -- desks ---------------------------------------------------------------------------------------


def desks_get_what_they_lack(logs: Logs) -> Iterator[str]:
    """What was committed well before a desk's sync has come when that is answered."""
    for (kind, zone, identifier), (made_at, heard_at) in _first_heard(logs).items():
        for sync in logs.desk.syncs.values():
            if (sync.kind, sync.zone) != (kind, zone) or sync.answered_at is None:
                continue
            if made_at < sync.sent_at - _AGAIN_S and heard_at > sync.answered_at + _AT_ONCE_S:
                yield f"the sync of {kind}/{zone} at {sync.sent_at:.1f} did not bring {identifier}"


def operators_know_who_is_not_there(logs: Logs, unattended_s: float) -> Iterator[str]:
    """What no desk has for too long is told to operators."""
    for (kind, zone, identifier), (made_at, heard_at) in _first_heard(logs).items():
        if heard_at - made_at > unattended_s + _ALARM_S:
            told = [
                (at, one.stands)
                for at, one in logs.operator.alarms
                if (one.kind, one.zone) == (kind, zone)
            ]
            before = [stands for at, stands in told if at <= made_at][-1:]
            if not any([*before, *(stands for at, stands in told if made_at < at <= heard_at)]):
                yield f"no operator heard that {kind}/{zone} lacked {identifier} for long"


def _first_heard(logs: Logs) -> dict[tuple[str, str, UUID], tuple[float, float]]:
    """Return when each message was committed, and when its desk heard it first."""
    found: dict[tuple[str, str, UUID], tuple[float, float]] = {}
    for at, told in logs.desk.escalations:
        found.setdefault(("police", told.zone, told.id), (_committed_at(told), at))
    for at, case in logs.desk.cases:
        found.setdefault(("city", case.municipality, case.id), (_committed_at(case), at))
    return found


def _committed_at(told: Escalation | Case) -> float:
    return told.committed_at.timestamp() - EPOCH_S


# -- groups --------------------------------------------------------------------------------------


def history_begins_at_joining(logs: Logs, groups: Reporters) -> Iterator[str]:
    """Nobody hears what was before they joined, or reported; who did neither hears the end alone."""
    for user, log in logs.devices.items():
        joined = _joined_at(log)
        for _, event in log.events:
            if event.kind is GroupEventKind.CLOSED or event.incident not in groups:
                continue
            if user in groups[event.incident]:
                since = groups[event.incident][user] - _TAKEN_UP_S
                is_before = event.at.timestamp() - EPOCH_S < since
            else:
                is_before = event.sequence < joined.get(event.incident, math.inf)
            if is_before:
                yield f"{user} heard event {event.sequence} of {event.incident} from before joining"


def members_hear_all(logs: Logs, openers: Mapping[UUID, str]) -> Iterator[str]:
    """Who opened an incident hears all of its group; who joined it all from then on."""
    last: dict[UUID, int] = defaultdict(int)
    for log in logs.devices.values():
        for _, event in log.events:
            last[event.incident] = max(last[event.incident], event.sequence)
    for user, log in logs.devices.items():
        first = _joined_at(log)
        first |= {incident: 1 for incident, opener in openers.items() if opener == user}
        heard: dict[UUID, set[int]] = defaultdict(set)
        for _, event in log.events:
            heard[event.incident].add(event.sequence)
        for incident, since in first.items():
            if lacking := set(range(since, last[incident] + 1)) - heard[incident]:
                yield f"{user} never heard events {sorted(lacking)} of the group of {incident}"


def sequences_are_one(logs: Logs) -> Iterator[str]:
    """Each event of a group has a number of its own, the same for everybody."""
    ids: dict[tuple[UUID, int], set[UUID]] = defaultdict(set)
    sequences: dict[UUID, set[int]] = defaultdict(set)
    for log in logs.devices.values():
        for _, event in log.events:
            ids[event.incident, event.sequence].add(event.id)
            sequences[event.id].add(event.sequence)
    for (incident, sequence), several in ids.items():
        if len(several) > 1:
            yield f"{len(several)} group events of {incident} have the sequence {sequence}"
    for identifier, numbers in sequences.items():
        if len(numbers) > 1:
            yield f"group event {identifier} has the sequences {sorted(numbers)}"


def _joined_at(log: DeviceLog) -> dict[UUID, int]:
    """Return the number of the joining event in each incident joined by accepting."""
    joined: dict[UUID, int] = {}
    for _, event in log.events:
        if event.kind is GroupEventKind.JOINED and event.member == event.you:
            joined[event.incident] = min(event.sequence, joined.get(event.incident, event.sequence))
    return joined


# -- receipts and short alerts -------------------------------------------------------------------


def slips_are_told(
    logs: Logs, receipts: Mapping[UUID, Collection[tuple[float, Receipt]]]
) -> Iterator[str]:
    """The receipt of a report in which something was odd says so; what is garbled is refused."""
    for log in logs.devices.values():
        for report in log.odd:
            if any(not receipt.notes for _, receipt in receipts.get(report, ())):
                yield f"the receipt of report {report} does not say what was odd in it"
    answers = [log.refused for log in logs.devices.values()]
    for refused in (*answers, logs.desk.refused):
        for outcomes in refused.values():
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
