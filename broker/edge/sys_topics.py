"""What the MQTT broker tells of itself under `$SYS`, by Mosquitto's names (mosquitto(8))."""

from broker.edge.edge_broker import EdgeBroker


def sys_topics(broker: EdgeBroker, uptime_s: float) -> dict[str, bytes]:
    """Return the payload of each topic."""
    router = broker.router
    counters = router.counters
    numbers = {
        "clients/connected": sum(one.session is not None for one in broker.connections),
        "clients/total": len(broker.sessions),
        "messages/received": counters.received,
        "publish/messages/dropped": counters.dropped,
        "publish/messages/refused": counters.refused,
        "retained messages/count": len(router.retained),
        "subscriptions/count": len(router.subscriptions),
    }
    told = {f"$SYS/broker/{name}": str(number).encode() for name, number in numbers.items()}
    return {"$SYS/broker/uptime": f"{int(uptime_s)} seconds".encode(), **told}
