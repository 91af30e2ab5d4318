"""What /metrics shows besides the workers' counters: their health, and figures of the store."""

from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from broker.core.health import Health
from nabij.local.readiness import Readiness
from nabij.local.store_metrics import StoreFigures
from nabij.local.supervisor import Supervisor, Worker

_OF_WORKERS: tuple[tuple[str, str, Callable[[Health], float | None]], ...] = (
    ("nabij_mqtt_up", "The worker is connected to an MQTT broker", lambda one: float(one.mqtt_up)),
    ("nabij_redis_up", "Redis took the worker's last write", lambda one: float(one.redis_up)),
    (
        "nabij_mqtt_round_trip_seconds",
        "From publishing to receiving it, at the last probe",
        lambda one: one.mqtt_round_trip_s,
    ),
    (
        "nabij_redis_answer_seconds",
        "How long Redis took to write, at the last probe",
        lambda one: one.redis_answer_s,
    ),
    (
        "nabij_clock_jump_seconds",
        "By how much the wall clock is off while the time from before is kept",
        lambda one: one.clock_jump_s,
    ),
)


class Exposition(Collector):
    """Collects from the supervisor, and from the store if there is one."""

    def __init__(
        self, supervisor: Supervisor, now: Callable[[], Readiness], store: StoreFigures | None
    ) -> None:
        self._workers = supervisor.workers
        self._now = now
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """Yield every family, also those without a sample yet: rules and dashboards name them."""
        now = self._now()
        yield _gauge("nabij_ready", "Reports are handled (/readyz)", now.ready)
        yield _gauge("nabij_degraded", "They are, but an operator must act", now.degraded)
        yield _gauge("nabij_redis_unsafe", "Redis may lose what got a receipt", now.unsafe_redis)
        ready = GaugeMetricFamily("nabij_worker_ready", "Worker is ready", labels=["worker"])
        restarts = CounterMetricFamily(
            "nabij_worker_restarts", "Worker was started again", labels=["worker"]
        )
        jumps = CounterMetricFamily(
            "nabij_clock_jumps", "Jumps of the wall clock that a worker noticed", labels=["worker"]
        )
        for worker in self._workers:
            ready.add_metric([worker.name], float(worker.is_ready))
            restarts.add_metric([worker.name], float(worker.restarts))
            jumps.add_metric([worker.name], worker.health.clock_jumps if worker.health else 0)
        yield from (ready, restarts, jumps)
        for name, text, value_of in _OF_WORKERS:
            yield self._of_workers(name, text, value_of)
        if self._store:
            yield from self._store.collect()

    def _of_workers(
        self, name: str, text: str, value_of: Callable[[Health], float | None]
    ) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, text, labels=["worker"])
        for worker in self._workers:
            value = value_of(_health(worker))
            if value is not None:
                family.add_metric([worker.name], value)
        return family


def _health(worker: Worker) -> Health:
    """Return a worker's health; if it does not answer, nothing of it is up."""
    return worker.health if worker.health and worker.alive else Health()


def _gauge(name: str, text: str, value: bool) -> GaugeMetricFamily:  # noqa: FBT001 - a sample
    return GaugeMetricFamily(name, text, value=float(value))
