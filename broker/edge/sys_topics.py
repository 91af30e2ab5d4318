"""What the MQTT broker tells of itself: under `$SYS` by Mosquitto's names (mosquitto(8)), and to Prometheus."""

from broker.edge.edge_broker import EdgeBroker

# The names of Prometheus, and what they mean; those of `$SYS` where Mosquitto has them too.
_FIGURES = {
    "clients/connected": ("clients_connected", "gauge", "Clients that are connected"),
    "clients/total": ("sessions", "gauge", "Sessions, of clients that are connected or not"),
    "messages/received": ("messages_received_total", "counter", "Messages that clients published"),
    "messages/queued/bytes": ("queued_bytes", "gauge", "Bytes that wait or are retained"),
    "publish/messages/dropped": (
        "messages_dropped_total",
        "counter",
        "Messages not sent to a client: its queue was full, or QoS 0 could not be sent at once",
    ),
    "publish/messages/refused": (
        "messages_refused_total",
        "counter",
        "Messages that their account may not publish, or not have retained",
    ),
    "quotas/waits": ("quota_waits_total", "counter", "Times that a client waited for its quota"),
    "retained messages/count": ("retained_messages", "gauge", "Messages that are retained"),
    "subscriptions/count": ("subscriptions", "gauge", "Subscriptions"),
    "journal/batches": ("journal_batches_total", "counter", "Batches written to the journal"),
}


def sys_topics(broker: EdgeBroker, uptime_s: float) -> dict[str, bytes]:
    """Return the payload of each topic."""
    told = {f"$SYS/broker/{name}": str(one).encode() for name, one in _figures(broker).items()}
    return {"$SYS/broker/uptime": f"{int(uptime_s)} seconds".encode(), **told}


def exposition(broker: EdgeBroker) -> str:
    """Return the same in Prometheus' text format."""
    lines = []
    for name, number in _figures(broker).items():
        metric, kind, text = _FIGURES[name]
        metric = f"nabij_edge_{metric}"
        lines += [f"# HELP {metric} {text}", f"# TYPE {metric} {kind}", f"{metric} {number}"]
    return "\n".join([*lines, ""])


def _figures(broker: EdgeBroker) -> dict[str, int]:
    router, counters = broker.router, broker.router.counters
    return {
        "clients/connected": sum(one.session is not None for one in broker.connections),
        "clients/total": len(broker.sessions),
        "messages/received": counters.received,
        "messages/queued/bytes": sum(one.queued_bytes for one in broker.accounts.values()),
        "publish/messages/dropped": counters.dropped,
        "publish/messages/refused": counters.refused,
        "quotas/waits": counters.waits,
        "retained messages/count": len(router.retained),
        "subscriptions/count": len(router.subscriptions),
        "journal/batches": broker.recorder.committed,
    }
