"""`nabij tail`: what goes over MQTT, one message a line."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec

from broker.errors import ConfigError
from broker.mqtt import Message
from broker.runtime.config import Settings
from nabij.local.opened_store import opened_mqtt
from nabij.output import one_line, print_json, print_line, say
from schemas.codec import Invalid
from schemas.topics import PROBE, ROOT, TOPICS


async def tail(settings: Settings, topic_filter: str, *, as_json: bool) -> None:
    """Print every message on `topic_filter` until cancelled.

    Raises:
        ConfigError: no MQTT broker is configured and none runs in the data directory.
        UnavailableError: it cannot be reached, or refuses the account.
    """
    topic_filter = full_filter(topic_filter)
    client_id, wanted = f"nabij-tail-{uuid4().hex[:12]}", [_checked(topic_filter)]
    async with opened_mqtt(settings, client_id=client_id, subscriptions=wanted) as connection:
        say(f"listening to {topic_filter}; Ctrl-C ends it")
        async for delivery in connection:
            if is_wanted(delivery.message.topic, topic_filter):
                _print(delivery.message, as_json=as_json)
            delivery.acknowledge()


def is_wanted(topic: str, topic_filter: str) -> bool:
    """Whether to print it: each worker's probe of each second only where the filter names probes."""
    return PROBE.parse(topic) is None or "/probe" in topic_filter


def described(message: Message) -> dict[str, Any]:
    """Return what the topic and payload of `message` are, decoded if they are ours."""
    said = {"at": datetime.now(UTC), "topic": message.topic, "retain": message.retain}
    for topic in TOPICS:
        if topic.parse(message.topic) is None:
            continue
        kind = getattr(topic.payload, "__name__", topic.name)
        if not message.payload:
            return {**said, "type": kind, "payload": None}
        try:
            value, notes = topic.read(message.payload)
            odd = {"notes": notes} if notes else {}
            return {**said, "type": kind, "payload": msgspec.to_builtins(value), **odd}
        except Invalid as invalid:
            text = message.payload.decode(errors="replace")
            return {**said, "type": kind, "payload": text, "invalid": str(invalid)}
    return {**said, "type": None, "payload": message.payload.decode(errors="replace")}


def _print(message: Message, *, as_json: bool) -> None:
    said = described(message)
    if as_json:
        print_json(said)
        return
    payload = said["payload"]
    text = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
    marks = f"{' (retained)' if said['retain'] else ''}{_invalid(said)}"
    line = f"{said['at']:%H:%M:%S.%f} {message.topic}{marks} {said['type'] or '?'} {text}"
    print_line(one_line(line))


def _invalid(said: dict[str, Any]) -> str:
    return f" INVALID {said['invalid']}" if "invalid" in said else ""


def full_filter(topic_filter: str) -> str:
    """Return it with the `nabij/v1/` that all of our topics begin with, if that was left out."""
    first = topic_filter.partition("/")[0]
    if topic_filter.startswith(("$", "/")) or first in ("nabij", "+", ""):
        return topic_filter
    return f"{ROOT}/{topic_filter}"


def _checked(topic_filter: str) -> str:
    """A `$share` would take messages away from the services (MQTT 5 section 4.8.2)."""
    levels = topic_filter.split("/")
    wild = any("#" in level and level != "#" for level in levels) or "#" in levels[:-1]
    plus = any("+" in level and level != "+" for level in levels)
    if not topic_filter or wild or plus or "\0" in topic_filter:
        raise ConfigError([f"{topic_filter!r} is no topic filter (MQTT 5 section 4.7)"])
    if topic_filter.startswith("$share/"):
        raise ConfigError(["a shared subscription would swallow the services' messages"])
    return topic_filter
