"""The end of each conversation of an incident without a group: by its own silence, or by the desk.

That of a conversation which ends too early is lost (I3); one that outlives its own silence tells
that there are other reporters (I5).
"""

from collections import defaultdict
from uuid import UUID

from schemas.messages import GroupEventKind, Outcome
from schemas.taxonomy import PolicyFile, Urgency
from verify.oracle.coverage import CLOCK_S
from verify.oracle.evidence import Evidence
from verify.oracle.history import NEVER
from verify.oracle.judgement import Judgement
from verify.oracle.observations import MessageSent, ReportCreated
from verify.oracle.report_judge import effects_of

Span = tuple[float, float]  # from when it was sent until when it was confirmed

_TO_REPORTERS = ("inform", "ask")  # in these runs to all reporters of the incident


def judge_ends(
    evidence: Evidence, policy: PolicyFile, judgement: Judgement, *, slack_s: float, until: float
) -> None:
    """Judge each conversation; it may end `slack_s` late, and was watched `until` then."""
    effects = effects_of(evidence)
    ends: dict[UUID, float] = {}
    for event in evidence.groups:
        if event.kind is GroupEventKind.CLOSED:
            ends[event.incident] = min(event.at, ends.get(event.incident, NEVER))
    closed = _sent_to(evidence, "close")
    spoken = _sent_to(evidence, *_TO_REPORTERS)
    said: dict[UUID, list[MessageSent]] = defaultdict(list)
    for message in evidence.sent.values():
        said[message.incident].append(message)
    for conversation, report in evidence.conversations(policy):
        incident = min((each.incident for each in effects[report.id]), default=conversation)
        end = ends.get(conversation, NEVER)
        if any(sent_at <= (until if end == NEVER else end) for sent_at, _ in closed[incident]):
            continue  # the desk ended it, or may have
        own = [
            (message.t, NEVER if message.done is None else message.done)
            for message in said[conversation]
            if message.user == report.user
        ]
        last = _last([_confirmed(evidence, report), *own, *spoken[incident]], end)
        _judge_end(report, end, last, judgement, policy=policy, slack_s=slack_s, until=until)


def _judge_end(
    report: ReportCreated,
    end: float,
    last: Span,
    judgement: Judgement,
    *,
    policy: PolicyFile,
    slack_s: float,
    until: float,
) -> None:
    urgent = policy.categories[report.category].urgency is Urgency.URGENT
    silence_s = policy.timers.silence_s if urgent else policy.timers.silence_routine_s
    told = f"the conversation of report {report.id}"
    if end < last[0] + silence_s - CLOCK_S:
        early_s = last[0] + silence_s - end
        judgement.lose("I3", f"{told} ended {early_s:.1f} s before its silence was over")
    elif end == NEVER and last[1] + silence_s + slack_s < until:
        judgement.lose("I3", f"{told} never ended")
    elif NEVER > end > last[1] + silence_s + slack_s:
        late_s = end - last[1] - silence_s
        judgement.blame("I5", f"{told} ended {late_s:.1f} s after its own silence was over")


def _confirmed(evidence: Evidence, report: ReportCreated) -> Span:
    return report.t, evidence.receipts[report.id][0].t


def _sent_to(evidence: Evidence, *kinds: str) -> dict[UUID, list[Span]]:
    """Return when each incident's accepted commands of these kinds were sent and confirmed."""
    spans: dict[UUID, list[Span]] = defaultdict(list)
    for identifier, command in evidence.commands.items():
        if command.command in kinds:
            answers = evidence.orders.get(identifier, ())
            done = [each.t for each in answers if each.outcome is Outcome.ACCEPTED]
            if done or not answers:
                spans[command.incident].append((command.t, min(done, default=NEVER)))
    return spans


def _last(activity: list[Span], end: float) -> Span:
    """Return the last moment at which something certainly, and possibly, happened before the end."""
    before = [span for span in activity if span[0] < end]
    certain = max((sent_at for sent_at, done in before if done <= end), default=-NEVER)
    return certain, max((done for _, done in before), default=-NEVER)
