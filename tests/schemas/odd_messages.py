"""Messages with a detail changed, read as the services read them."""

import json
from typing import Any

from schemas import topics
from schemas.codec import encode
from schemas.examples import AT, V5, V7

PLACE = {"lat": 51.05, "lon": 3.72}

BASE: dict[str, dict[str, Any]] = {
    "report": {"id": str(V7), "category": "fire", "location": PLACE, "seen_at": AT.isoformat()},
    "presence": {"at": AT.isoformat(), "location": PLACE},
    "reply": {"id": str(V7), "incident": str(V5), "kind": "accepted"},
    "message": {"id": str(V7), "incident": str(V5), "text": "hello"},
    "answer": {"id": str(V7), "question": str(V5), "text": "no"},
    "sync": {"since": AT.isoformat()},
    "command": {"id": str(V7), "incident": str(V5), "command": "inform", "by": "desk", "text": "x"},
}

TOPICS = {name: next(one for one in topics.TOPICS if one.name == name) for name in BASE}


def read(name: str, **changed: Any) -> tuple[Any, tuple[str, ...]]:
    return read_raw(name, json.dumps(BASE[name] | changed).encode())


def read_raw(name: str, payload: bytes) -> tuple[Any, tuple[str, ...]]:
    value, notes = TOPICS[name].read(payload)
    assert TOPICS[name].read(encode(value)) == (value, ())  # what comes out is well formed
    return value, notes
