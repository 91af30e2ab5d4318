"""Who had to be alerted to each incident, who may have been, and who was."""

from collections import defaultdict
from functools import partial
from uuid import UUID

from schemas.ids import incident_id, without_region
from schemas.taxonomy import Audience, PolicyFile
from verify.oracle.counts import Count
from verify.oracle.coverage import (
    CLOCK_S,
    Helping,
    Wave,
    first_radius_m,
    helping_of,
    waves_of,
)
from verify.oracle.history import NEVER, AlertLog, ReplayHistory
from verify.oracle.judgement import Judgement
from verify.oracle.merging import Episode
from verify.oracle.recipients_due import AlertingIncident, Near, due, why

REPORTER_GRACE_S = 30.0  # a participant due for an alert this long before reporting it has had it


class AlertOracle:
    """The alerts of one history; `judge` fills `count`."""

    def __init__(
        self,
        policy: PolicyFile,
        history: ReplayHistory,
        episodes: dict[UUID, Episode],
        judgement: Judgement,
        *,
        settled_at: float,
        heard_until: float,
    ) -> None:
        self.count = Count(judgement, missing_is="I4", unexpected_is="I5")
        self.duplicates = 0
        self.redelivered = 0
        self._policy = policy
        self._history = history
        self._episodes = episodes
        self._settled_at = settled_at
        self._heard_until = heard_until
        self._near = Near(history.presences, policy)
        self._helping: dict[UUID, list[Helping]] = defaultdict(list)
        for incident, helping in helping_of(history.acceptances, history.departures):
            self._helping[incident].append(helping)

    def judge(self) -> None:
        """Compare incident by incident."""
        got, seen = self._heard(self._history.alerts)
        for incident, episode in self._episodes.items():
            self._judge_incident(episode, got.pop(incident, set()), seen.get(incident, {}))
        unconfirmed = {
            incident_id(report.id)
            for report in self._history.reports
            if report.incident is None and report.rejected is None
        }
        for incident, users in got.items():
            if without_region(incident) in unconfirmed:
                self.count.ambiguous += len(users)
                continue
            for user in users:
                self.count.refuse(partial(self._why_foreign, user, incident))

    def _heard(self, log: AlertLog) -> tuple[dict[UUID, set[int]], dict[UUID, dict[int, float]]]:
        """Return who was alerted to each incident, and when each of its waves was first seen."""
        ids: dict[int, int] = {}
        got: list[set[int]] = [set() for _ in log.incidents]
        seen: list[dict[int, float]] = [{} for _ in log.incidents]
        for user, number, alert, wave, _, received_at in log:
            if user in got[number]:
                if ids[(number << 32) | user] == alert:
                    self.redelivered += 1
                else:
                    self._refuse_second(user, log.incidents[number])
                continue
            got[number].add(user)
            ids[(number << 32) | user] = alert
            if wave not in seen[number] or received_at < seen[number][wave]:
                seen[number][wave] = received_at
        return (
            dict(zip(log.incidents, got, strict=True)),
            dict(zip(log.incidents, seen, strict=True)),
        )

    def _refuse_second(self, user: int, incident: UUID) -> None:
        self.duplicates += 1
        self.count.double(lambda: f"{self._name(user)} was alerted to {incident} a second time")

    def _judge_incident(self, episode: Episode, got: set[int], seen: dict[int, float]) -> None:
        alerting = self._alerting(episode, seen)
        must, may = due(alerting, self._near, reporter_grace_s=REPORTER_GRACE_S)
        self.count.expected += len(must)
        self.count.ambiguous += len(may - must)
        for user in must - got:
            self.count.miss(partial(self._why, user, alerting, "was not alerted"))
        for user in got - may:
            self.count.refuse(partial(self._why, user, alerting, "was alerted"))

    def _alerting(self, episode: Episode, seen: dict[int, float]) -> AlertingIncident:
        first = episode.first
        certain_until, possible_until = episode.open_until()
        possible_until = min(possible_until, self._heard_until)
        return AlertingIncident(
            name=f"{first.category} {episode.id}",
            lat=first.lat,
            lon=first.lon,
            opened=(first.sent_at, first.received_at),
            waves=self._waves(episode, seen, possible_until),
            reporters=_reporters(episode),
            certain_until=min(certain_until, self._settled_at),
            possible_until=possible_until,
        )

    def _alerts_since(self, episode: Episode) -> tuple[float, float]:
        """Return since when people are alerted, possibly and certainly: by the first fresh report."""
        category = self._policy.categories[episode.first.category]
        within_s = category.alert_if_seen_within_s or self._policy.timers.alert_if_seen_within_s
        possible = certain = NEVER
        for report in episode.reports:
            if report.sent_at - report.seen_at <= within_s + CLOCK_S:
                possible = min(possible, report.sent_at)
            if report.received_at - report.seen_at <= within_s - CLOCK_S:
                certain = min(certain, report.received_at)
        return possible, certain

    def _waves(self, episode: Episode, seen: dict[int, float], possible_until: float) -> list[Wave]:
        first, opened = episode.first, self._alerts_since(episode)
        category = self._policy.categories[first.category]
        radius_m = first_radius_m(category, first.accuracy_m, self._policy)
        is_open_to_all = episode.audience is Audience.POLICE_AND_NEARBY
        if radius_m == 0 or opened[0] == NEVER or not is_open_to_all:
            return []
        return waves_of(
            radius_m=radius_m,
            opened=opened,
            helping=self._helping.get(episode.id, ()),
            seen=seen,
            possible_until=possible_until,
            policy=self._policy,
        )

    def _why(self, user: int, alerting: AlertingIncident, what: str) -> str:
        """Say what decides whether this person is alerted, to help find the error."""
        return f"{self._name(user)} {what} to {alerting.name}; {why(user, alerting, self._near)}"

    def _why_foreign(self, user: int, incident: UUID) -> str:
        return (
            f"{self._name(user)} was alerted to {incident}, which no report of this replay opened"
        )

    def _name(self, user: int) -> str:
        return self._history.participants[user]


def _reporters(episode: Episode) -> dict[int, tuple[float, float]]:
    """Return when each reporter's first report was sent and confirmed.

    The one who opened it reported it before it was there.
    """
    reporters = {episode.first.user: (-NEVER, -NEVER)}
    for report in episode.reports:
        known = reporters.get(report.user, (NEVER, NEVER))
        reporters[report.user] = (min(known[0], report.sent_at), min(known[1], report.received_at))
    return reporters
