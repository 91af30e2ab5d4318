"""The judge: I1 to I10, from the logs of devices and desks; the store is asked for I1 and I8 alone.

Knows nothing of `broker/core` or the services: the rules are those of `docs/protocol.md`.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from schemas.ids import is_opened_by
from schemas.messages import EscalationKind, GroupEventKind, Merge, Outcome, Status, Subject
from schemas.taxonomy import Desk, PolicyFile
from verify.chaos.alert_judge import judge_alerts
from verify.chaos.chaos_log import Commanded, Created, Receipted
from verify.chaos.chaos_privacy import is_for_desk_alone, judge_privacy
from verify.chaos.evidence import Evidence, StoreFacts
from verify.chaos.judgement import Judgement

# What a desk may be told without anything being wrong: what it acts on may have changed.
_LATE = ("incident_closed", "bad_transition")

Heard = Mapping[
    UUID | None, set[UUID]
]  # the ids of what was heard, in each group or of each report


def judge(
    evidence: Evidence,
    facts: StoreFacts,
    policy: PolicyFile,
    *,
    settled_at: float,
    poison: Collection[str] = (),
    growth: Sequence[str] = (),
) -> Judgement:
    """Judge one run. `poison` went into the streams by hand; `growth` is what grew (I9)."""
    judgement = Judgement()
    _kept(evidence, facts, judgement)
    _journaled_or_receipted(evidence, facts, judgement)
    _one_effect(evidence, policy, judgement)
    judge_privacy(evidence, policy, judgement)
    judge_alerts(evidence, policy, judgement, settled_at=settled_at)
    _versions(evidence, judgement)
    _at_rest(facts, judgement, poison)
    for what in growth:
        judgement.blame("I9", what)
    _commands(evidence, judgement)
    _talk(evidence, judgement)
    return judgement


def _kept(evidence: Evidence, facts: StoreFacts, judgement: Judgement) -> None:
    """I1, and I6 for the reports whose receipt was Redis's death."""
    # A device may die between its receipt and its log, after its journal was told.
    untold = {
        report
        for report, created in evidence.created.items()
        if report in evidence.delivered and report not in evidence.receipts and not created.poison
    }
    for report in evidence.accepted().keys() | untold:
        created = evidence.created.get(report)
        name = "I6" if created and created.probe else "I1"
        if facts.reports[report] == 0:
            judgement.lose(name, f"report {report} was receipted and is not in the store")
        elif facts.reports[report] > 1:
            judgement.double(name, f"report {report} is in {facts.reports[report]} incidents")


def _journaled_or_receipted(evidence: Evidence, facts: StoreFacts, judgement: Judgement) -> None:
    for report, created in evidence.created.items():
        if report in evidence.receipts or report in evidence.delivered or report in facts.journals:
            continue
        if report in evidence.journaled or not _died_after(created, evidence):
            judgement.lose("I2", f"report {report} of {created.user} is nowhere")


def _died_after(created: Created, evidence: Evidence) -> bool:
    """Whether the device died then: what it had not yet journaled was never made."""
    lives = evidence.started.get(evidence.process_of.get(created.user, ""), ())
    return any(began > created.t for began in lives)


def _one_effect(evidence: Evidence, policy: PolicyFile, judgement: Judgement) -> None:
    """I3: the receipts agree, and the police or the city heard of each report under one id."""
    heard = _heard(evidence)
    sequences: dict[int, UUID] = {}
    for report, receipts in evidence.receipts.items():
        created, first = evidence.created.get(report), receipts[0]
        if created is None:
            continue
        if len({_told(receipt) for receipt in receipts}) > 1:
            judgement.double("I3", f"report {report} has receipts that differ")
        if created.odd and not all(receipt.notes for receipt in receipts):
            judgement.blame("I3", f"the receipt of report {report} does not say what was odd in it")
        if created.poison and first.outcome is Outcome.ACCEPTED:
            judgement.blame("I8", f"report {report} is poison and was accepted")
        elif not created.poison and first.outcome is Outcome.REJECTED:
            judgement.lose("I3", f"report {report} was rejected: {first.code}")
        elif not created.poison:
            is_apart = is_for_desk_alone(created, policy)
            if not is_apart:
                _agree(report, first, sequences, judgement)
            city = policy.categories[created.category].desk is Desk.CITY
            what = "case" if city else "escalation"
            _heard_once(first, heard[report], what, judgement, is_apart=is_apart)
    _overdue_once(evidence, judgement)
    _counted_once(evidence, heard, judgement)


def _heard(evidence: Evidence) -> dict[UUID, set[tuple[UUID, UUID]]]:
    """Return of each report the ids that its desk heard, each with the incident."""
    heard: dict[UUID, set[tuple[UUID, UUID]]] = defaultdict(set)
    for told in evidence.escalations:
        if told.report and told.kind in (EscalationKind.NEW, EscalationKind.UPDATE):
            heard[told.report].add((told.id, told.incident))
    for case in evidence.cases:
        if case.message is None:
            heard[case.report].add((case.id, case.incident))
    return heard


def _told(receipt: Receipted) -> tuple[object, ...]:
    return receipt.outcome, receipt.incident, receipt.merge, receipt.sequence


def _agree(
    report: UUID, receipt: Receipted, sequences: dict[int, UUID], judgement: Judgement
) -> None:
    other = sequences.setdefault(receipt.sequence or 0, report)
    if other != report:
        judgement.double("I3", f"reports {report} and {other} have one sequence number")
    if (receipt.merge is Merge.OPENED) != (
        receipt.incident is not None and is_opened_by(receipt.incident, report)
    ):
        judgement.blame("I3", f"report {report}: {receipt.merge}, but incident {receipt.incident}")


def _heard_once(
    receipt: Receipted,
    heard: set[tuple[UUID, UUID]],
    what: str,
    judgement: Judgement,
    *,
    is_apart: bool,
) -> None:
    """Of what `is_apart`, for its desk alone, the receipt does not tell the incident."""
    report = receipt.id
    if not heard:
        judgement.lose("I3", f"report {report} had no {what}")
    elif len({identifier for identifier, _ in heard}) > 1:
        judgement.double("I3", f"report {report} had several {what}s")
    elif not is_apart and {incident for _, incident in heard} != {receipt.incident}:
        judgement.blame("I3", f"report {report} had its {what} under another incident")


def _overdue_once(evidence: Evidence, judgement: Judgement) -> None:
    """Deadlines fire once: one id for each attempt."""
    ids: dict[tuple[UUID, int], set[UUID]] = defaultdict(set)
    for told in evidence.escalations:
        if told.kind is EscalationKind.OVERDUE:
            ids[told.incident, told.attempt].add(told.id)
    for (incident, attempt), several in ids.items():
        if len(several) > 1:
            judgement.double("I3", f"incident {incident} was overdue twice as attempt {attempt}")


def _counted_once(
    evidence: Evidence, heard: dict[UUID, set[tuple[UUID, UUID]]], judgement: Judgement
) -> None:
    """An incident counts the reports that it has receipts for, each once; its desk knows which."""
    receipted = Counter(
        incident
        for report, receipt in evidence.accepted().items()
        for incident in {receipt.incident, *(incident for _, incident in heard[report])}
    )
    unknown = len(evidence.delivered & evidence.created.keys() - evidence.receipts.keys())
    for state in evidence.retained:
        if state.reports > receipted[state.incident] + unknown:
            judgement.double(
                "I3",
                f"incident {state.incident} counts {state.reports} reports,"
                f" {receipted[state.incident]} were receipted",
            )


def _versions(evidence: Evidence, judgement: Judgement) -> None:
    """I7: at a desk, at a desk that comes later, and in what a group is told."""
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
    numbered: dict[tuple[UUID, int], set[UUID]] = defaultdict(set)
    for event in evidence.groups:
        numbered[event.incident, event.sequence].add(event.id)
    for (incident, sequence), ids in numbered.items():
        if len(ids) > 1:
            judgement.blame("I7", f"incident {incident} has {len(ids)} group events {sequence}")


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


def _at_rest(facts: StoreFacts, judgement: Judgement, poison: Collection[str]) -> None:
    for what, count in facts.undone.items():
        if count:
            judgement.blame("I8", f"{count} in {what} at rest")
    letters = facts.dead_letters
    if len(set(letters)) < len(letters):
        judgement.double("I8", f"{len(letters) - len(set(letters))} dead letters are there twice")
    for letter in sorted(set(letters) - {*poison}):
        judgement.blame("I8", f"a dead letter that nobody injected: {letter[:200]}")
    for letter in sorted({*poison} - set(letters)):
        judgement.lose("I8", f"poison that is in no dead letter: {letter}")
    for report in facts.journals:
        judgement.blame("I8", f"message {report} is still in a journal")


def _commands(evidence: Evidence, judgement: Judgement) -> None:
    """I10: every command is answered, one way, and what it does is seen once."""
    said = _ids_by_text(evidence)
    asked: dict[str, Heard] = defaultdict(lambda: defaultdict(set))
    for question in evidence.asked:
        asked[question.text][question.report].add(question.id)
    for identifier, command in evidence.commands.items():
        answers = evidence.orders.get(identifier, [])
        outcomes = {(answer.outcome, answer.code) for answer in answers}
        if not outcomes:
            judgement.lose("I10", f"command {identifier} ({command.command}) was never answered")
        elif len(outcomes) > 1:
            judgement.double("I10", f"command {identifier} was answered in {len(outcomes)} ways")
        elif answers[0].outcome is Outcome.REJECTED:
            if answers[0].code not in _LATE:
                judgement.lose("I10", f"command {identifier}: {answers[0].code}")
        elif command.command in ("inform", "close"):
            _seen_once(command, said.get(command.text, {}), judgement)
        elif command.command == "ask":
            _seen_once(command, asked.get(command.text, {}), judgement)


def _seen_once(command: Commanded, heard: Heard, judgement: Judgement) -> None:
    if not heard:
        judgement.lose("I10", f"nobody heard of the command {command.id} ({command.command})")
    elif any(len(ids) > 1 for ids in heard.values()):
        judgement.double("I10", f"the command {command.id} ({command.command}) took effect twice")


def _ids_by_text(evidence: Evidence) -> dict[str, Heard]:
    ids: dict[str, Heard] = defaultdict(lambda: defaultdict(set))
    for event in evidence.groups:
        if event.text and event.kind in (GroupEventKind.SAID, GroupEventKind.CLOSED):
            ids[event.text][event.incident].add(event.id)
    return ids


def _talk(evidence: Evidence, judgement: Judgement) -> None:
    """What a member said, and got a receipt for, the group heard once (under I3: one effect)."""
    said = _ids_by_text(evidence)
    for message in evidence.sent:
        if message.subject is not Subject.MESSAGE or message.done is None:
            continue
        ids = said.get(message.text, {}).get(message.incident, set())
        if not ids:
            judgement.lose("I3", f"nobody heard the message «{message.text}» of {message.user}")
        elif len(ids) > 1:
            judgement.double("I3", f"the message «{message.text}» was heard under {len(ids)} ids")
