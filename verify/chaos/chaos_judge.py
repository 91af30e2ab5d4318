"""The judge of chaos: I1 to I11, from the logs; the store is asked for I1 and I8 alone.

Knows nothing of `broker` or the services: the rules are those of `docs/protocol.md`.
"""

from collections.abc import Collection, Sequence

from schemas.taxonomy import PolicyFile
from verify.chaos.chaos_evidence import ChaosEvidence, StoreFacts
from verify.oracle.alert_judge import judge_alerts
from verify.oracle.command_judge import judge_commands
from verify.oracle.conversation_judge import judge_ends
from verify.oracle.coverage import WAVE_SLACK_S
from verify.oracle.judgement import Judgement
from verify.oracle.mqtt_judge import judge_mqtt
from verify.oracle.observations import ReportCreated
from verify.oracle.privacy_judge import judge_privacy
from verify.oracle.report_judge import judge_reports
from verify.oracle.version_judge import judge_versions


def judge(
    evidence: ChaosEvidence,
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
    judge_reports(evidence, policy, judgement, untold=len(evidence.untold()))
    judge_privacy(evidence, policy, judgement)
    losses = {user: evidence.losses_of(name) for user, name in evidence.process_of.items()}
    judge_alerts(evidence, policy, judgement, settled_at=settled_at, losses=losses)
    judge_ends(evidence, policy, judgement, slack_s=WAVE_SLACK_S, until=settled_at)
    judge_versions(evidence, judgement)
    _at_rest(facts, judgement, poison)
    for what in growth:
        judgement.blame("I9", what)
    judge_commands(evidence, judgement)
    judge_mqtt(evidence, judgement)
    return judgement


def _kept(evidence: ChaosEvidence, facts: StoreFacts, judgement: Judgement) -> None:
    """I1, and I6 for the reports whose receipt was Redis's death."""
    untold = {report for report in evidence.untold() if not evidence.created[report].poison}
    for report in evidence.accepted().keys() | untold:
        created = evidence.created.get(report)
        name = "I6" if created and created.probe else "I1"
        if facts.reports[report] == 0:
            judgement.lose(name, f"report {report} was receipted and is not in the store")
        elif facts.reports[report] > 1:
            judgement.double(name, f"report {report} is in {facts.reports[report]} incidents")


def _journaled_or_receipted(
    evidence: ChaosEvidence, facts: StoreFacts, judgement: Judgement
) -> None:
    for report, created in evidence.created.items():
        if report in evidence.receipts or report in evidence.receipted or report in facts.journals:
            continue
        if report in evidence.journaled or not _died_after(created, evidence):
            judgement.lose("I2", f"report {report} of {created.user} is nowhere")


def _died_after(created: ReportCreated, evidence: ChaosEvidence) -> bool:
    """Whether the device died then: what it had not yet journaled was never made."""
    lives = evidence.started.get(evidence.process_of.get(created.user, ""), ())
    return any(began > created.t for began in lives)


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
