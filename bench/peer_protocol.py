"""What programs beside ours speak in a benchmark: the relay, which is a floor, and the peers.

A report is `{"id", "incident", "report", "lat", "lon", "text"}`, its three ids the same. A program
answers on `RECEIPT` and `POLICE` with the same ids, and alerts `{user}` on `ALERT` with a payload
that has the `incident`.
"""

import sys

import msgspec

from schemas import topics
from schemas.messages import Report
from schemas.topics import ROOT

REPORT = f"{ROOT}/ops/bench/report"
RECEIPT = f"{ROOT}/ops/bench/receipt"
POLICE = f"{ROOT}/ops/bench/police"
PEOPLE = "bench:people"  # the peers' index: a Redis GEO key
RADIUS_M = 500
READY = "ready"
_TEXT = "x" * 120  # so that it is as long as one of ours


def urls() -> tuple[str, str]:
    """Return where MQTT and Redis are, from standard input: arguments are for all to read."""
    return sys.stdin.readline().strip(), sys.stdin.readline().strip()


def report(ours: Report) -> bytes:
    """Return a report as these programs read it."""
    name = str(ours.id)
    place = {"lat": ours.location.lat, "lon": ours.location.lon}
    return msgspec.json.encode(
        {"id": name, "incident": name, "report": name, **place, "text": _TEXT}
    )


def alert_topic(user: str) -> str:
    """Return where `user` reads alerts."""
    return topics.ALERT.topic(user=user)
