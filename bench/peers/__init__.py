"""The same job as users would otherwise write it, beside ours: aiomqtt, FastStream, paho-mqtt.

Each peer is a program, `python -m bench.peers.NAME MQTT_URL REDIS_URL`, which speaks what
`bench/peer_protocol.py` says: a report comes, the police are told, those within 500 m are found
with Redis' GEOSEARCH and alerted. Short and idiomatic; nothing of it is durable, merged, or known
to have come.
"""

from redis.asyncio import Redis

from bench import peer_protocol
from bench.bench_world import BenchWorld, Way, beside, world
from bench.results import BenchResult, Histogram, Row

NAMES = ("with_aiomqtt", "with_faststream", "with_paho")
_FEW, _SOME, _MANY = 50, 100, 1_000
_RATE = 10.0
_FIRST_RATE, _QUICK_FIRST_RATE, _LAST_RATE, _GROWTH = 20.0, 70.0, 2.0, 1.5
_TOO_LATE_MS = 1_000.0


class PeerFigures:
    """What one of them came to: p50 to the police, p50 to the last of 1,000 (ms), alerts a second."""

    def __init__(self, police_ms: float, last_ms: float, knee: float) -> None:
        self.police_ms = police_ms
        self.last_ms = last_ms
        self.knee = knee


async def _index(here: BenchWorld) -> None:
    """Put everybody into the index that the peers search."""
    store = Redis.from_url(here.stack.redis_url)
    for group in here.groups.values():
        for user in group.users:
            await store.geoadd(peer_protocol.PEOPLE, (group.place.lon, group.place.lat, user))
    await store.aclose()


async def _knee(here: BenchWorld, way: Way, *, quick: bool) -> float:
    """Return the alerts a second at the highest rate whose 99th percentile was below a second."""
    lasts_s, rate = (1.0, _QUICK_FIRST_RATE) if quick else (5.0, _FIRST_RATE)
    knee, is_too_high = 0.0, False
    while rate > _LAST_RATE:
        sent = await here.send(max(20, int(rate * lasts_s)), rate, _FEW, by=way, within_s=60.0)
        if Histogram(one.last - one.due for one in sent).ms(99) > _TOO_LATE_MS:
            if knee:
                return knee
            is_too_high, rate = True, rate / _GROWTH
            continue
        began = min(one.due for one in sent)
        knee = sum(one.alerts for one in sent) / (max(one.last for one in sent) - began)
        if is_too_high:
            return knee
        rate *= _GROWTH
    return knee


async def _of(here: BenchWorld, way: Way, *, quick: bool) -> PeerFigures:
    few, many = (20, 5) if quick else (200, 40)
    await here.send(10, _RATE, _SOME, by=way)  # warm-up
    one_by_one = await here.send(few, _RATE, _SOME, by=way)
    await here.send(2, 1.0, _MANY, by=way, within_s=60.0)
    last = []
    for _ in range(many):
        (sent,) = await here.send(1, 1.0, _MANY, by=way, within_s=60.0)
        last.append(sent.last - sent.due)
    return PeerFigures(
        Histogram(one.police - one.due for one in one_by_one).ms(50),
        Histogram(last).ms(50),
        await _knee(here, way, quick=quick),
    )


async def measure(*, quick: bool) -> BenchResult:
    """Measure ours, then each peer beside it, on the same servers."""
    found: dict[str, PeerFigures] = {}
    async with world([_FEW, _SOME, _MANY]) as here:
        await here.open_aside()
        await _index(here)
        ours = await _of(here, Way.NABIJ, quick=quick)
        for name in NAMES:
            async with beside(here, f"bench.peers.{name}"):
                found[name] = await _of(here, Way.PEER, quick=quick)
    police = ours.police_ms / min(one.police_ms for one in found.values())
    last = min(one.last_ms for one in found.values()) / ours.last_ms
    knee = ours.knee / max(one.knee for one in found.values())
    keys: dict[str, object] = {
        "ratio_police_p50_best_peer": round(police, 2),
        "ratio_last_1000_best_peer": round(last, 2),
        "ratio_knee_best_peer": round(knee, 2),
        "nabij": vars(ours),
        **{name: vars(one) for name, one in found.items()},
    }
    rows = [
        _row("report → police, p50 (ms)", "police_ms", ours, found, f"{police:.2f}", "≤ 1"),
        _row("last of 1,000 alerts, p50 (ms)", "last_ms", ours, found, f"{last:.2f}", "≥ 5"),
        _row("alerts a second at the knee", "knee", ours, found, f"{knee:.2f}", "≥ 5"),
    ]
    return BenchResult("peers", keys, rows, [])


def _row(  # noqa: PLR0917 - a table's cells
    what: str, name: str, ours: PeerFigures, found: dict[str, PeerFigures], ratio: str, goal: str
) -> Row:
    theirs = ", ".join(
        f"{peer.removeprefix('with_')} {getattr(one, name):,.1f}" for peer, one in found.items()
    )
    return Row(what, f"{getattr(ours, name):,.1f}", theirs, ratio, goal)
