"""Judges a simulated world from the logs of its devices and desk alone.

By the rules that all proofs share (`verify/oracle`), and by what only a small world at its end can
tell: nothing is left, every number is used, everybody has heard all, every incident has ended.
Written from docs/protocol.md; it shares no code with the broker.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from uuid import UUID

from schemas.messages import Merge, Status
from schemas.taxonomy import PolicyFile
from verify.oracle.alert_judge import judge_alerts
from verify.oracle.audiences import is_for_desk_alone
from verify.oracle.command_judge import judge_commands
from verify.oracle.conversation_judge import judge_ends
from verify.oracle.evidence import Evidence
from verify.oracle.judgement import Judgement, Violation
from verify.oracle.observations import ReceiptSeen, ReportCreated
from verify.oracle.privacy_judge import judge_privacy
from verify.oracle.report_judge import effects_of, judge_reports
from verify.oracle.version_judge import judge_versions
from verify.simulation.promises import (
    Reporters,
    dead_letters_are_the_poison,
    desks_get_what_they_lack,
    garbled_is_refused,
    history_begins_at_joining,
    leaving_is_told,
    members_hear_all,
    operators_know_who_is_not_there,
    short_alerts_say_no_more,
    who_left_hears_nothing,
)
from verify.simulation.simulation_logs import Logs
from verify.simulation.virtual_time import EPOCH_S

JUDGES = ("I1", "I2", "I3", "I4", "I5", "I7", "I8", "I10", "I11")  # what a world is judged by
_WELL_S = EPOCH_S + 10.0  # until here something may be lost that was on its way to a device
_SETTLED_S = EPOCH_S + 50.0  # what was certainly due by here has come, if nothing ended before
_LATE_S = 6.0  # so late a conversation may end: a trap may kill its worker even then
_END_S = EPOCH_S + 700.0


class Checker:
    """The logs of one world, and what they prove."""

    def __init__(self, logs: Logs, policy: PolicyFile) -> None:
        self.logs = logs
        self.evidence = Evidence()
        for log in logs.senders:
            self.evidence.take_all(log.rows)
        self.evidence.retained = logs.rest.late_states
        self._policy = policy

    @property
    def receipts(self) -> Mapping[UUID, list[ReceiptSeen]]:
        """Return the receipts of each report."""
        return self.evidence.receipts

    def violations(self) -> list[Violation]:
        """Return every broken promise."""
        evidence, policy, judgement = self.evidence, self._policy, Judgement()
        judge_reports(evidence, policy, judgement)
        judge_privacy(evidence, policy, judgement)
        judge_ends(evidence, policy, judgement, slack_s=_LATE_S, until=_END_S)
        losses = dict.fromkeys(self.logs.devices, (_WELL_S,))
        judge_alerts(evidence, policy, judgement, settled_at=_SETTLED_S, losses=losses)
        judge_versions(evidence, judgement)
        judge_commands(evidence, judgement)
        for invariant, found in self._at_the_end():
            for what in found:
                judgement.blame(invariant, what)
        return judgement.all()

    def _at_the_end(self) -> Iterator[tuple[str, Iterator[str]]]:
        """Yield what only a world at its end can tell, under the invariant that it violates."""
        logs, evidence = self.logs, self.evidence
        groups, openers = self._groups(), self._openers()
        yield "I1", self._numbers_are_used()
        yield "I2", self._receipted()
        yield "I3", self._made_by_somebody()
        yield "I3", members_hear_all(evidence, openers)
        yield "I3", leaving_is_told(evidence, openers, deaths=logs.rest.deaths)
        yield "I3", desks_get_what_they_lack(logs, evidence)
        yield "I3", operators_know_who_is_not_there(logs, evidence, self._policy)
        yield "I3", garbled_is_refused(logs)
        yield "I5", history_begins_at_joining(evidence, groups)
        yield "I5", who_left_hears_nothing(evidence)
        yield "I5", short_alerts_say_no_more(logs)
        yield "I7", self._ended()
        yield "I8", self._nothing_is_left()
        yield "I8", dead_letters_are_the_poison(logs)
        yield "I11", iter(logs.rest.mqtt_losses)

    def _numbers_are_used(self) -> Iterator[str]:
        """A gap in the numbers of receipts would tell of reports for a desk alone."""
        count = self.logs.partitions
        numbers: dict[int, set[int]] = defaultdict(set)
        for receipt in (one for several in self.receipts.values() for one in several):
            if receipt.sequence is not None:
                numbers[receipt.sequence % count].add(receipt.sequence // count)
        for used in numbers.values():
            if sorted(used) != [*range(1, len(used) + 1)]:
                yield f"{len(used)} reports with a number have the numbers {sorted(used)}"

    def _receipted(self) -> Iterator[str]:
        """Every created report is journaled or receipted; at rest, receipted."""
        for identifier, created in self.evidence.created.items():
            journal = self.logs.devices[created.user].journal
            if identifier not in self.receipts and identifier not in journal:
                yield f"report {identifier} of {created.user} is nowhere"
        for log in self.logs.senders:
            if log.journal:
                yield f"{len(log.journal)} messages were never confirmed: {min(log.journal)}"

    def _made_by_somebody(self) -> Iterator[str]:
        for report in effects_of(self.evidence).keys() - self.evidence.created.keys():
            yield f"nobody made report {report}"

    def _groups(self) -> Reporters:
        """Return who reported each incident that has a group, and since when."""
        groups: dict[UUID, dict[str, float]] = defaultdict(dict)
        for report, receipt in self.evidence.accepted().items():
            created = self._public(report)
            if created is not None and receipt.incident is not None:
                known = groups[receipt.incident]
                known[created.user] = min(created.t, known.get(created.user, created.t))
        return groups

    def _openers(self) -> dict[UUID, str]:
        """Return who opened each incident that has a group."""
        return {
            receipt.incident: created.user
            for report, receipt in self.evidence.accepted().items()
            if receipt.merge is Merge.OPENED and receipt.incident is not None
            for created in (self._public(report),)
            if created is not None
        }

    def _public(self, report: UUID) -> ReportCreated | None:
        created = self.evidence.created.get(report)
        is_apart = created is not None and is_for_desk_alone(created, self._policy)
        return None if is_apart else created

    def _ended(self) -> Iterator[str]:
        for state in {one.incident: one for one in self.evidence.retained}.values():
            if state.status is not Status.CLOSED:
                yield f"incident {state.incident} stayed at version {state.version}, {state.status}"

    def _nothing_is_left(self) -> Iterator[str]:
        for what, count in self.logs.rest.left.items():
            if count:
                yield f"{count} left in {what}"
        for trouble in self.logs.trouble:
            yield f"trouble: {trouble}"
