"""`nabij dead-letters`: list, show, replay and drop dead letters."""

import asyncio
import base64
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from asyncio_throttle.throttler import Throttler

from broker.errors import ConfigError, UnavailableError
from broker.mqtt import Connection, Message
from broker.runtime.config import Settings
from broker.runtime.dead_letters import REPLAY
from broker.store import DeadLetter, OutboxMessage, Store
from broker.store.outbox import post
from nabij.event_loop import run
from nabij.local.opened_store import opened_mqtt, opened_store
from nabij.output import one_line, print_json, print_line, print_table, say

WAIT_S = 10.0  # how long after the last one to wait before it counts as not handled
A_SECOND = 50  # the rate of a replay: ten thousand at once would hold up new reports
_TELL_EVERY = 500
_LOOK_S = 0.05


def run_list(settings: Settings, *, as_json: bool) -> None:
    """Print every dead letter, the oldest first."""
    letters, dropped = run(_list(settings))
    if as_json:
        print_json(
            {
                "count": len(letters),
                "dropped": dropped,
                "letters": [_described(letter, whole=False) for letter in letters],
            }
        )
        return
    if letters:
        print_table(
            ["id", "time", "service", "topic", "code", "bytes"],
            [
                [
                    str(one.id),
                    _time(one.at),
                    one.service,
                    one.topic,
                    one.code,
                    str(len(one.payload)),
                ]
                for one in letters
            ],
        )
    else:
        say("no dead letters")
    if dropped:
        say(f"{dropped} more were dropped, the oldest first, for want of room or being too old")


def run_show(settings: Settings, identifier: str, *, as_json: bool) -> bool:
    """Print one dead letter in full; return whether it exists."""
    letter = run(_get(settings, _identifier(identifier)))
    if letter is None:
        say(f"there is no dead letter {identifier}")
        return False
    described = _described(letter, whole=True)
    if as_json:
        print_json(described)
    else:
        for name, value in described.items():
            if value is None:
                continue
            shown = _time(value) if isinstance(value, datetime) else str(value)
            print_line(f"{name}: {one_line(shown)}")
    return True


def run_replay(
    settings: Settings, identifiers: Sequence[str], *, everything: bool, as_json: bool
) -> bool:
    """Put dead letters back where they came from; return whether all were handled."""
    wanted = _wanted(identifiers, everything=everything)
    outcome = run(_replay(settings, wanted))
    _print_outcome(outcome, as_json=as_json)
    return not (outcome["failed"] or outcome["waiting"] or outcome["unknown"])


def run_drop(
    settings: Settings, identifiers: Sequence[str], *, everything: bool, as_json: bool
) -> bool:
    """Delete dead letters; return whether all of them existed."""
    wanted = _wanted(identifiers, everything=everything)
    outcome = run(_drop(settings, wanted))
    _print_outcome(outcome, as_json=as_json)
    return not outcome["unknown"]


def _print_outcome(outcome: dict[str, list[UUID]], *, as_json: bool) -> None:
    if as_json:
        print_json(outcome)
        return
    for name, identifiers in outcome.items():
        for identifier in identifiers:
            print_line(f"{name}: {identifier}")
    if not any(outcome.values()):
        say("no dead letters")


# -- what is asked for ---------------------------------------------------------------------------


def _identifier(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise ConfigError([f"{text!r} is no id; `nabij dead-letters list` has them"]) from None


def _wanted(identifiers: Sequence[str], *, everything: bool) -> list[UUID] | None:
    """Return the given ids, or None for all."""
    if everything == bool(identifiers):
        raise ConfigError(["give either ids or --all"])
    return None if everything else [_identifier(text) for text in identifiers]


def _described(letter: DeadLetter, *, whole: bool) -> dict[str, Any]:
    said: dict[str, Any] = {
        "id": letter.id,
        "at": letter.at,
        "service": letter.service,
        "topic": letter.topic,
        "code": letter.code,
        "field": letter.field,
        "reason": letter.reason,
        "bytes": len(letter.payload),
        "replay_of": letter.replay_of,
    }
    return {**said, **_payload(letter.payload)} if whole else said


def _payload(payload: bytes) -> dict[str, str]:
    """Return a payload as text, or in base64 if it is not text."""
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(payload).decode()}


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


# -- in the store, and back on its way -----------------------------------------------------------


async def _list(settings: Settings) -> tuple[list[DeadLetter], int]:
    async with opened_store(settings) as partitions:
        store = partitions.first
        return await store.dead_letters.all(), (await store.dead_letters.counts()).dropped


async def _get(settings: Settings, identifier: UUID) -> DeadLetter | None:
    async with opened_store(settings) as partitions:
        store = partitions.first
        return await store.dead_letters.get(identifier)


async def _drop(settings: Settings, wanted: list[UUID] | None) -> dict[str, list[UUID]]:
    async with opened_store(settings) as partitions:
        store = partitions.first
        letters, unknown = await _chosen(store, wanted)
        dropped = [letter.id for letter in letters]
        await store.dead_letters.drop(dropped)
        return {"dropped": dropped, "unknown": unknown}


async def _replay(settings: Settings, wanted: list[UUID] | None) -> dict[str, list[UUID]]:
    async with opened_store(settings) as partitions, AsyncExitStack() as connected:
        store = partitions.first
        letters, unknown = await _chosen(store, wanted)
        bare = [letter.id for letter in letters if letter.bare]
        if bare:
            say("nothing was kept of messages from unknown senders: rename the account")
        letters = [letter for letter in letters if not letter.bare]
        mqtt: Connection | None = None
        throttler = Throttler(rate_limit=A_SECOND)
        for number, letter in enumerate(letters, 1):
            async with throttler:
                if letter.outgoing:
                    await _send_until_confirmed(store, letter)
                elif letter.stream is not None:
                    events = partitions[letter.partition].events
                    await events.replay(letter.stream, letter.payload, letter.id)
                else:
                    if mqtt is None:
                        mqtt = await connected.enter_async_context(_mqtt(settings))
                    token = await store.dead_letters.allow_replay(letter.id)
                    await _publish(mqtt, letter, token)
            if number % _TELL_EVERY == 0:
                say(f"replayed: {number} of {len(letters)}")
        outcome = await _outcome(store, {one.id for one in letters})
        return {**outcome, "failed": [*outcome["failed"], *bare], "unknown": unknown}


async def _chosen(store: Store, wanted: list[UUID] | None) -> tuple[list[DeadLetter], list[UUID]]:
    """Return the requested dead letters, and the ids that do not exist."""
    letters = await store.dead_letters.all()
    if wanted is None:
        return letters, []
    known = {letter.id: letter for letter in letters}
    found = [known[one] for one in dict.fromkeys(wanted) if one in known]
    return found, [one for one in wanted if one not in known]


async def _send_until_confirmed(store: Store, letter: DeadLetter) -> None:
    """Put a message that no reader confirmed into the outbox again: a PUBACK proves nothing."""
    now_ms = int(time.time() * 1000)
    message = OutboxMessage(
        id=str(letter.id), topic=letter.topic, payload=letter.payload, made_ms=now_ms, due_ms=now_ms
    )
    transaction = store.transaction()
    post(transaction, message)
    await transaction.run()
    await store.dead_letters.drop([letter.id])


async def _publish(mqtt: Connection, letter: DeadLetter, token: str) -> None:
    """Publish it again; the service that handles it deletes the dead letter."""
    properties = ((REPLAY, token),)
    reason = await mqtt.publish(Message(letter.topic, letter.payload, user_properties=properties))
    if reason.is_failure:
        raise UnavailableError(f"the MQTT broker refused {letter.id}: {reason.name}")


async def _outcome(store: Store, replayed: set[UUID]) -> dict[str, list[UUID]]:
    """Wait for the results: handled, a new dead letter, or not handled in time."""
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while True:
        letters = await store.dead_letters.all()
        waiting = sorted({letter.id for letter in letters} & replayed)
        if not waiting or asyncio.get_running_loop().time() > deadline:
            failed = sorted(one.replay_of for one in letters if one.replay_of in replayed)
            done = sorted(replayed - {*waiting, *failed})
            return {"done": done, "failed": failed, "waiting": waiting}
        await asyncio.sleep(_LOOK_S)


def _mqtt(settings: Settings) -> AbstractAsyncContextManager[Connection]:
    return opened_mqtt(settings, client_id=f"nabij-replay-{uuid4().hex[:12]}")
