"""I10: every command is answered, one way, and what it does is seen once."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from uuid import UUID

from schemas.messages import Outcome
from verify.oracle.evidence import Evidence
from verify.oracle.judgement import Judgement
from verify.oracle.observations import CommandSent
from verify.oracle.report_judge import ids_by_text

# What a desk may be told without anything being wrong: what it acts on may have changed.
_LATE = ("incident_closed", "bad_transition")


def judge_commands(evidence: Evidence, judgement: Judgement) -> None:
    """Judge each command. What takes effect in words is heard under one id in each conversation."""
    said = ids_by_text(evidence)
    asked: dict[str, dict[UUID | None, set[UUID]]] = defaultdict(lambda: defaultdict(set))
    for question in evidence.questions:
        asked[question.text][question.report].add(question.id)
    for identifier, command in evidence.commands.items():
        if not _is_done(identifier, command, evidence, judgement):
            continue
        if command.command in ("inform", "close"):
            _seen_once(command, said.get(command.text, {}), judgement)
        elif command.command == "ask":
            _seen_once(command, asked.get(command.text, {}), judgement)
    _assigned_once(evidence, judgement)


def _is_done(
    identifier: UUID, command: CommandSent, evidence: Evidence, judgement: Judgement
) -> bool:
    answers = evidence.orders.get(identifier, [])
    outcomes = {(answer.outcome, answer.code) for answer in answers}
    if not outcomes:
        judgement.lose("I10", f"command {identifier} ({command.command}) was never answered")
    elif len(outcomes) > 1:
        judgement.double("I10", f"command {identifier} was answered in {len(outcomes)} ways")
    elif answers[0].outcome is Outcome.ACCEPTED:
        return True
    elif answers[0].code not in _LATE:
        judgement.lose("I10", f"command {identifier}: {answers[0].code}")
    return False


def _seen_once(
    command: CommandSent,
    heard: Mapping[UUID, Collection[UUID]] | Mapping[UUID | None, Collection[UUID]],
    judgement: Judgement,
) -> None:
    if not heard:
        judgement.lose("I10", f"nobody heard of the command {command.id} ({command.command})")
    elif any(len(ids) > 1 for ids in heard.values()):
        judgement.double("I10", f"the command {command.id} ({command.command}) took effect twice")


def _assigned_once(evidence: Evidence, judgement: Judgement) -> None:
    """Of what is accepted, a unit stands once in the incident's last state."""
    last = {state.incident: state for state in evidence.retained}
    for identifier, command in evidence.commands.items():
        answers = evidence.orders.get(identifier, ())
        if command.command != "assign" or command.incident not in last:
            continue
        count = last[command.incident].assigned.count(command.text)
        if count != 1 and any(one.outcome is Outcome.ACCEPTED for one in answers):
            judgement.blame("I10", f"the unit of command {identifier} is assigned {count} times")
