"""Whether reports are handled now and, if not, why: /readyz, from the health of each worker."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from broker.core.health import Cause, Severity, stops
from nabij.local.supervisor import Worker

UNSAFE = "unsafe_redis"


class Why(Struct, frozen=True, kw_only=True):
    """One cause, and the workers that report it (none: the supervisor itself)."""

    code: str
    what: str
    mend: str
    stops: bool
    workers: list[str]


class Readiness(Struct, frozen=True, kw_only=True):
    """The answer of /readyz."""

    ready: bool
    degraded: bool
    unsafe_redis: bool
    why: list[Why]
    workers: dict[str, str]


def readiness(workers: Sequence[Worker], more: Iterable[Cause] = ()) -> Readiness:
    """Sum up the workers' causes, and `more` that concern all of them."""
    by_cause: dict[Cause, list[str]] = defaultdict(list)
    for cause in more:
        by_cause[cause] = []
    for worker in workers:
        for cause in worker.causes():
            by_cause[_as_felt(cause, worker, workers)].append(worker.name)
    wrong = {one: names for one, names in by_cause.items() if one.severity is not Severity.NOTE}
    return Readiness(
        ready=not stops(by_cause),
        degraded=bool(wrong),
        unsafe_redis=any(cause.code == UNSAFE for cause in by_cause),
        why=[_why(cause, names) for cause, names in by_cause.items()],
        workers={worker.name: worker.condition for worker in workers},
    )


def _as_felt(cause: Cause, worker: Worker, workers: Sequence[Worker]) -> Cause:
    """Degrade a cause that stops only some of a service's workers: the service goes on."""
    others = any(one.service == worker.service and one.is_ready for one in workers)
    if others and cause.severity is Severity.STOPS:
        return replace(cause, severity=Severity.DEGRADES)
    return cause


def _why(cause: Cause, names: list[str]) -> Why:
    return Why(
        code=cause.code,
        what=cause.what,
        mend=cause.mend,
        stops=cause.severity is Severity.STOPS,
        workers=names,
    )
