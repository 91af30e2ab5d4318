"""Whether everybody heard what they had to, and nothing else: the brute-force answer.

Derived from `docs/protocol.md`, a history of what devices sent and heard, and nothing of the
broker's: plain haversine over everybody's places, ray casting for zones, intervals for doubt. What
is certainly due and was not heard is *missing*; what was heard and cannot be due is *unexpected*;
what may or may not be due, because the commit falls somewhere between sending and receipt, is
*ambiguous* and judged by neither.
"""

from dataclasses import dataclass

from schemas.taxonomy import PolicyFile
from verify.oracle.alerts_due import AlertOracle
from verify.oracle.audiences import is_for_desk_alone
from verify.oracle.counts import EXAMPLES, DueCounts
from verify.oracle.desk_merging import follow_told, told_of
from verify.oracle.desks_due import DeskOracle
from verify.oracle.geofence import Geofence
from verify.oracle.history import NEVER, ReplayHistory
from verify.oracle.judgement import Judgement
from verify.oracle.merging import Merging


@dataclass(frozen=True, kw_only=True)
class OracleVerdict:
    """The oracle's answer.

    `duplicates` are second alerts of one incident to the same person, which are unexpected too;
    `redelivered` is the same message again, which QoS 1 allows. Cases are counted apart from
    escalations, and `missing` and `unexpected` are sums over alerts, escalations and cases.
    `judgement` is the same in the words of every proof: I3, I4 and I5.
    """

    judgement: Judgement
    alerts: DueCounts
    escalations: DueCounts
    cases: DueCounts
    merges_wrong: int
    incidents: int
    duplicates: int
    redelivered: int
    missing_examples: tuple[str, ...] = ()
    unexpected_examples: tuple[str, ...] = ()
    wrong_examples: tuple[str, ...] = ()

    @property
    def missing(self) -> int:
        """Over alerts, escalations and cases."""
        return self.alerts.missing + self.escalations.missing + self.cases.missing

    @property
    def unexpected(self) -> int:
        """Over alerts, escalations and cases."""
        return self.alerts.unexpected + self.escalations.unexpected + self.cases.unexpected


class Oracle:
    """Judges histories by a policy and the zones that the broker uses too."""

    def __init__(self, policy: PolicyFile, *, zones: Geofence, municipalities: Geofence) -> None:
        self._policy = policy
        self._zones = zones
        self._municipalities = municipalities

    def judge(
        self, history: ReplayHistory, settled_at: float = NEVER, heard_until: float = NEVER
    ) -> OracleVerdict:
        """Compare everything that was heard with everything that was due.

        What became certain only after `settled_at` (Unix time) need not have arrived, what became
        possible only after `heard_until` cannot have.
        """
        judgement = Judgement(kept=EXAMPLES)
        merging = self._merging(history)
        for wrong in merging.wrong:
            judgement.blame("I3", wrong)
        alerts = AlertOracle(
            self._policy,
            history,
            merging.episodes,
            judgement,
            settled_at=settled_at,
            heard_until=heard_until,
        )
        alerts.judge()
        desks = DeskOracle(
            self._policy, history, merging.episodes, judgement, settled_at=settled_at
        )
        desks.judge_escalations(self._zones)
        desks.judge_cases(self._municipalities)
        counts = (alerts.count, desks.escalations, desks.cases)
        return OracleVerdict(
            judgement=judgement,
            alerts=alerts.count.tally(),
            escalations=desks.escalations.tally(),
            cases=desks.cases.tally(),
            merges_wrong=len(merging.wrong),
            incidents=len(merging.episodes),
            duplicates=alerts.duplicates,
            redelivered=alerts.redelivered + desks.redelivered,
            missing_examples=tuple(each for count in counts for each in count.missed),
            unexpected_examples=tuple(each for count in counts for each in count.surplus),
            wrong_examples=tuple(merging.wrong[:EXAMPLES]),
        )

    def _merging(self, history: ReplayHistory) -> Merging:
        """Return which report belongs to which incident."""
        merging = Merging(
            self._policy, (*history.acceptances, *history.departures, *history.acknowledgements)
        )
        apart = [each for each in history.reports if is_for_desk_alone(each, self._policy)]
        hidden = {each.id for each in apart}
        merging.follow([each for each in history.reports if each.id not in hidden])
        follow_told(merging, apart, told_of(history))
        return merging
