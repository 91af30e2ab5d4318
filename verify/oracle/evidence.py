"""All that devices and desks of one run observed, laid out for its judges."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from uuid import UUID

from schemas.messages import Outcome, ReplyKind, Subject
from schemas.taxonomy import PolicyFile
from verify.oracle.audiences import is_for_desk_alone
from verify.oracle.observations import (
    AlertSeen,
    CaseSeen,
    CommandSent,
    EscalationSeen,
    GroupEventSeen,
    MessageSent,
    Observation,
    PresenceSent,
    PublishAcknowledged,
    PublishDelivered,
    QuestionSeen,
    ReceiptSeen,
    ReportCreated,
    RetainedRead,
    SessionOpened,
    StateSeen,
)

SentKey = tuple[str, float, Subject, UUID, ReplyKind | None, str]  # all of a message but its end


@dataclass(kw_only=True)
class Evidence:
    """The rows of all logs. `receipts` are those of reports, `orders` those of commands.

    What is sent stands there as its last row tells it: with its `done`, if it has its receipt. The
    last four are of clients that watch the MQTT broker alone.
    """

    created: dict[UUID, ReportCreated] = field(default_factory=dict)
    receipts: dict[UUID, list[ReceiptSeen]] = field(default_factory=lambda: defaultdict(list))
    presences: dict[tuple[str, int], PresenceSent] = field(default_factory=dict)
    sent: dict[SentKey, MessageSent] = field(default_factory=dict)
    alerts: list[AlertSeen] = field(default_factory=list)
    groups: list[GroupEventSeen] = field(default_factory=list)
    questions: list[QuestionSeen] = field(default_factory=list)
    escalations: list[EscalationSeen] = field(default_factory=list)
    cases: list[CaseSeen] = field(default_factory=list)
    states: list[StateSeen] = field(default_factory=list)
    retained: list[StateSeen] = field(default_factory=list)
    commands: dict[UUID, CommandSent] = field(default_factory=dict)
    orders: dict[UUID, list[ReceiptSeen]] = field(default_factory=lambda: defaultdict(list))
    acknowledged: list[PublishAcknowledged] = field(default_factory=list)
    delivered: list[PublishDelivered] = field(default_factory=list)
    sessions: list[SessionOpened] = field(default_factory=list)
    retained_reads: list[RetainedRead] = field(default_factory=list)

    def take_all(self, rows: Iterable[Observation]) -> None:
        """Take in the rows of one log, in their order."""
        for row in rows:
            self.take(row)

    def take(self, row: Observation) -> None:  # noqa: C901, PLR0912 - a line for each kind of row
        """Take in one row."""
        match row:
            case ReportCreated():
                self.created[row.id] = row
            case ReceiptSeen(subject=Subject.REPORT):
                self.receipts[row.id].append(row)
            case ReceiptSeen(subject=Subject.COMMAND):
                self.orders[row.id].append(row)
            case PresenceSent():
                self.presences[row.user, row.number] = row
            case MessageSent():
                key = (row.user, row.t, row.subject, row.incident, row.reply, row.text)
                self.sent[key] = row
            case CommandSent():
                self.commands[row.id] = row
            case AlertSeen():
                self.alerts.append(row)
            case GroupEventSeen():
                self.groups.append(row)
            case QuestionSeen():
                self.questions.append(row)
            case EscalationSeen():
                self.escalations.append(row)
            case CaseSeen():
                self.cases.append(row)
            case StateSeen(late=True):
                self.retained.append(row)
            case StateSeen():
                self.states.append(row)
            case PublishAcknowledged():
                self.acknowledged.append(row)
            case PublishDelivered():
                self.delivered.append(row)
            case SessionOpened():
                self.sessions.append(row)
            case RetainedRead():
                self.retained_reads.append(row)
            case _:
                pass

    def accepted(self) -> dict[UUID, ReceiptSeen]:
        """Return the first receipt of each report that was accepted."""
        return {
            report: receipts[0]
            for report, receipts in self.receipts.items()
            if receipts[0].outcome is Outcome.ACCEPTED
        }

    def conversations(self, policy: PolicyFile) -> Iterator[tuple[UUID, ReportCreated]]:
        """Yield the id of each incident that one reporter alone may know, with their report."""
        for report, receipt in self.accepted().items():
            created = self.created.get(report)
            if receipt.incident and created and is_for_desk_alone(created, policy):
                yield receipt.incident, created
