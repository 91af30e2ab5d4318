"""I7: versions never go back, at a desk, at one that comes later, and in what a group is told."""

from collections import defaultdict
from uuid import UUID

from schemas.messages import Status
from verify.oracle.evidence import Evidence
from verify.oracle.judgement import Judgement


def judge_versions(evidence: Evidence, judgement: Judgement) -> None:
    """Judge the states of incidents, and the numbers of group events."""
    followed, closed = _followed(evidence, judgement)
    kept = {state.incident: state for state in evidence.retained}
    told = {each.incident for each in evidence.escalations}
    for incident in sorted(told | followed.keys(), key=str):
        state = kept.get(incident)
        if state is None:
            judgement.lose("I7", f"incident {incident} has no retained state")
            continue
        # What came after the reading: a state that only the loss of a connection has published.
        version = max((v for t, v in followed.get(incident, ()) if t <= state.t), default=0)
        if state.version < version:
            judgement.blame(
                "I7", f"incident {incident} is retained at {state.version}, was at {version}"
            )
        elif incident in closed and state.status is not Status.CLOSED:
            judgement.blame("I7", f"incident {incident} was closed, and is retained as open")
    _numbers(evidence, judgement)


def _followed(
    evidence: Evidence, judgement: Judgement
) -> tuple[dict[UUID, list[tuple[float, int]]], set[UUID]]:
    """Return (time, version) of each incident's states at its desk, and which are closed there."""
    followed: dict[UUID, list[tuple[float, int]]] = defaultdict(list)
    latest: dict[UUID, int] = {}
    closed: set[UUID] = set()
    for state in evidence.states:
        if state.version < latest.get(state.incident, 0):
            judgement.blame("I7", f"incident {state.incident} went back to {state.version}")
        latest[state.incident] = max(latest.get(state.incident, 0), state.version)
        followed[state.incident].append((state.t, state.version))
        if state.status is Status.CLOSED:
            closed.add(state.incident)
        elif state.incident in closed:
            judgement.blame("I7", f"incident {state.incident} was closed, and is {state.status}")
    return followed, closed


def _numbers(evidence: Evidence, judgement: Judgement) -> None:
    """Each event of a group has a number of its own, the same for everybody."""
    ids: dict[tuple[UUID, int], set[UUID]] = defaultdict(set)
    numbers: dict[UUID, set[int]] = defaultdict(set)
    for event in evidence.groups:
        ids[event.incident, event.sequence].add(event.id)
        numbers[event.id].add(event.sequence)
    for (incident, sequence), several in ids.items():
        if len(several) > 1:
            judgement.blame("I7", f"incident {incident} has {len(several)} group events {sequence}")
    for event_id, several_numbers in numbers.items():
        if len(several_numbers) > 1:
            judgement.blame("I7", f"group event {event_id} is numbered {sorted(several_numbers)}")
