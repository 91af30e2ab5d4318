"""How simulated people move and decide: values and the simulated time in, values out; no network.

What they decide follows from the seed, the user and the incident alone.
"""

import math
from dataclasses import dataclass
from random import Random
from uuid import UUID

from schemas.messages import Position, ReplyKind
from verify.world.tracks import Track, moved, offset_between

WORDS = (
    "Ik kom eraan.",
    "Ik zie het, ik blijf op afstand.",
    "J'arrive, je suis à pied.",
    "Er staat al iemand bij.",
    "On my way.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How people behave: pairs are from and to, in simulated seconds unless the name says else."""

    presence_s: tuple[float, float] = (5.0, 30.0)
    presence_m: float = 25.0
    seen_after_s: tuple[float, float] = (1.0, 5.0)
    acceptance: tuple[float, float] = (0.17, 0.47)
    decide_after_s: tuple[float, float] = (2.0, 15.0)
    declining: float = 0.5  # of those who do not accept; the others say nothing
    speaking: float = 0.4  # of those who come
    leaving: float = 0.3  # of those who arrived
    stay_s: tuple[float, float] = (60.0, 600.0)
    walking_m_s: float = 1.4


@dataclass(frozen=True, slots=True)
class Decision:
    """What one person does about one incident. `answer` is None when they only look."""

    seen_after_s: float
    decide_after_s: float
    answer: ReplyKind | None
    words: str | None
    leaves_after_s: float | None


@dataclass(frozen=True, slots=True)
class Errand:
    """A straight walk to an incident, and waiting there."""

    start: Position
    x_m: float
    y_m: float
    began_s: float
    eta_s: float

    def position_at(self, now_s: float) -> Position:
        """Return the place at `now_s`."""
        share = min(1.0, (now_s - self.began_s) / self.eta_s) if self.eta_s else 1.0
        return moved(self.start, share * self.x_m, share * self.y_m)


class Person:
    """Where one of the crowd is, and what they decide. Times are simulated seconds."""

    def __init__(self, user: str, track: Track, seed: int, habits: Habits) -> None:
        random = Random(f"{seed} {user}")
        self.user = user
        self.random = random
        self.acceptance = random.uniform(*habits.acceptance)
        self._seed = seed
        self._habits = habits
        self._track = track
        self._ahead_s = random.uniform(0.0, 2.0 * track.duration_s)
        self._errand: Errand | None = None

    def position_at(self, now_s: float) -> Position:
        """Return where this person is: on the way to an incident, there, or on the track."""
        if self._errand is not None:
            return self._errand.position_at(now_s)
        return self._track.position_at(now_s + self._ahead_s)

    def go_to(self, place: Position, now_s: float) -> Errand:
        """Set out for `place`, leaving any other errand."""
        start = self.position_at(now_s)
        x_m, y_m = offset_between(start, place)
        eta_s = math.hypot(x_m, y_m) / self._habits.walking_m_s
        self._errand = Errand(start, x_m, y_m, now_s, eta_s)
        return self._errand

    def walk_on(self, errand: Errand, now_s: float) -> None:
        """Take up the track after `errand`, unless on another one by now.

        The track moves to where the person is, so that the person does not jump.
        """
        if self._errand is not errand:
            return
        x_m, y_m = self._track.offset_at(now_s + self._ahead_s)
        here = errand.position_at(now_s)
        self._track = self._track.on(moved(here, -x_m, -y_m))
        self._errand = None

    def next_presence_s(self, now_s: float) -> float:
        """Return how long until the next presence: 5 to 30 s, sooner when 25 m are walked."""
        most_s = self.random.uniform(*self._habits.presence_s)
        here = self.position_at(now_s)
        for second in range(1, math.floor(most_s)):
            x_m, y_m = offset_between(here, self.position_at(now_s + second))
            if math.hypot(x_m, y_m) > self._habits.presence_m:
                return float(second)
        return most_s

    def decide(self, incident: UUID) -> Decision:
        """Return what this person does about `incident`: for the same seed always the same."""
        random = Random(f"{self._seed} {self.user} {incident}")
        habits = self._habits
        seen_after_s = random.uniform(*habits.seen_after_s)
        decide_after_s = random.uniform(*habits.decide_after_s)
        comes = random.random() < self.acceptance
        declines = random.random() < habits.declining
        words = random.choice(WORDS) if random.random() < habits.speaking else None
        leaves = random.random() < habits.leaving
        stay_s = random.uniform(*habits.stay_s)
        if not comes:
            answer = ReplyKind.DECLINED if declines else None
            return Decision(seen_after_s, decide_after_s, answer, None, None)
        return Decision(
            seen_after_s, decide_after_s, ReplyKind.ACCEPTED, words, stay_s if leaves else None
        )
