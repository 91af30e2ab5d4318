"""Many seeds, one after another, and what they broke."""

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from schemas.taxonomy import PolicyFile
from verify.oracle.judgement import Violation
from verify.simulation.broken import Broken
from verify.simulation.simulated_world import SimulatedWorld, policy
from verify.simulation.simulation_judge import JUDGES, Checker
from verify.simulation.virtual_time import silence
from verify.world.exercised import Exercised

_COLLECT_EVERY = 20

OnTrace = Callable[[float, str, str], None]


@dataclass(slots=True)
class SimulationResult:
    """What came of the seeds: violations of each invariant, and by seed what they were."""

    seeds: int = 0
    reports: int = 0
    alerts: int = 0
    commands: int = 0
    kept_deaths: int = 0  # of MQTT brokers with a journal
    forgetful_deaths: int = 0
    exercised: Exercised = field(default_factory=Exercised)
    invariants: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(JUDGES, 0)))
    failing: dict[int, list[Violation]] = field(default_factory=dict)


def simulate(
    seeds: Iterable[int],
    *,
    broken: Broken | None = None,
    on_trace: OnTrace | None = None,
    swallowed: str | None = None,
) -> SimulationResult:
    """Live through the world of each seed and judge it.

    `swallowed` is the template of a topic on which nothing arrives, for the judge to notice.
    """
    result = SimulationResult()
    with silence(), _calm():
        for number, seed in enumerate(seeds, 1):
            _add(result, SimulatedWorld(seed, broken, on_trace, swallowed))
            if number % _COLLECT_EVERY == 0:
                gc.collect()
    return result


@contextmanager
def _calm() -> Iterator[None]:
    """Collect garbage every few worlds only: a dead one is all circles, a living one has none."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def first_failing(
    seeds: Iterable[int], broken: Broken | None = None, *, swallowed: str | None = None
) -> tuple[int, list[Violation]] | None:
    """Return the first seed that shows what is broken, and what it shows."""
    for seed in seeds:
        result = simulate([seed], broken=broken, swallowed=swallowed)
        if result.failing:
            return seed, result.failing[seed]
    return None


def _add(result: SimulationResult, world: SimulatedWorld) -> None:
    logs = world.run()
    checker = Checker(logs, rules())
    result.seeds += 1
    result.reports += len(checker.receipts)
    result.alerts += sum(len(log.alerts) for log in logs.devices.values())
    result.commands += len(logs.desk.commands)
    result.kept_deaths += sum(one.deaths for one in world.brokers if one.keeps)
    result.forgetful_deaths += sum(one.deaths for one in world.brokers if not one.keeps)
    result.exercised.counts += world.exercised.counts
    if violations := checker.violations():
        result.failing[world.seed] = violations
        result.invariants.update(violation.invariant for violation in violations)


def rules() -> PolicyFile:
    """Return what the checker must know: the simulated city's policy."""
    return policy().file


def lines(result: SimulationResult) -> Iterator[str]:
    """Yield the result in words."""
    for seed, violations in result.failing.items():
        for violation in violations:
            yield f"seed {seed}: {violation.invariant}: {violation.what}"
