"""What an `EdgeBroker` holds: whether its counters agree with it, and what a journal has to keep."""

from collections import Counter
from typing import Any

from broker.edge.edge_broker import EdgeBroker
from broker.edge.session import Session


def audit(broker: EdgeBroker) -> None:
    """Compare every counter with what it counts."""
    sessions = list(broker.sessions.values())
    used: dict[str, Counter[str]] = {name: Counter() for name in broker.accounts}
    lent: Counter[object] = Counter()
    held: Counter[tuple[object, int]] = Counter()
    for session in sessions:
        mine = used[session.account.grant.name]
        mine["sessions"] += 1
        mine["connections"] += session.link is not None
        mine["subscriptions"] += len(session.subscriptions)
        for one in (*session.queue, *session.in_flight.values()):
            if one.group is None:
                mine["queued_bytes"] += one.message.size
                held[session.key, one.message.number] += session.key in one.message.holders
            elif one.group is broker.router.groups.get(str(one.group.key)):
                lent[one.group.key] += one.message.size
                held[one.group.key, one.message.number] += 1
    for key, group in broker.router.groups.items():
        held.update((key, one.message.number) for one in group.queue)
        waiting = sum(one.message.size for one in group.queue)
        assert group._queued_bytes == waiting + lent[key], key
    for retained in broker.router.retained.values():
        if retained.account is not None:
            used[retained.account.grant.name]["retained"] += 1
            used[retained.account.grant.name]["queued_bytes"] += retained.message.size
    for name, account in broker.accounts.items():
        for what in ("connections", "sessions", "subscriptions", "queued_bytes", "retained"):
            assert getattr(account, what) == used[name][what], (name, what)
    in_journal = {
        (key, number)
        for number, message in broker.recorder.live.items()
        for key in message.holders
        if isinstance(key, int) or key in broker.router.groups
    }
    assert {one: count for one, count in held.items() if count} == dict.fromkeys(in_journal, 1)


def kept(broker: EdgeBroker) -> dict[str, Any]:
    """Return what must be the same after a restart."""
    sessions = {one.key: one for one in broker.sessions.values() if _lasts(one)}
    now = broker.now()
    return {
        "sessions": {
            key: (
                one.account.grant.name,
                one.client_id,
                one.expiry_s,
                None if one.will is None else one.will.payload,
                {pattern: each.options for pattern, each in one.subscriptions.items()},
                one.received,
            )
            for key, one in sessions.items()
        },
        "messages": {
            number: (one.publish.topic, one.publish.payload, one.expires_at, holders)
            for number, one in broker.recorder.live.items()
            if (
                holders := {key: held for key, held in one.holders.items() if _is_kept(broker, key)}
            )
        },
        "retained": {
            one.message.publish.topic: (one.message.publish.payload, one.account.grant.name)
            for one in broker.router.retained.values()
            if one.account is not None and (one.message.expires_at or now + 1) > now
        },
    }


def _is_kept(broker: EdgeBroker, key: object) -> bool:
    if isinstance(key, str):
        group = broker.router.groups.get(key)
        return group is not None and any(map(_lasts, group._members))
    return any(one.key == key and _lasts(one) for one in broker.sessions.values())


def _lasts(session: Session) -> bool:
    return session.is_recorded and session.expiry_s > 0
