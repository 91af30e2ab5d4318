"""Each recipient's alert: claimed once, then sent, refused, delivered or expired.

`alerts:{incident}` has `state wave reason claimed_ms at_ms tries code` for each, `at_ms` the time
of the state and `code` the MQTT broker's last answer. What a device has confirmed is in
`delivered:{incident}`, in any state. While an alert is neither confirmed nor expired, its incident
is in `unconfirmed`, with the time at which a worker must look again.
"""

import enum
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from broker.core import incident_history
from broker.core.changes import Event
from broker.core.incidents import Incident
from broker.core.membership import Member, Part
from broker.store.history_notes import encoded
from broker.store.kernel.msgpack import pack
from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.streams import emit
from broker.store.kernel.timestamps import milliseconds, moment_of
from broker.store.kernel.transaction import Transaction
from schemas.messages import AlertReason

SENDING_MS = (
    45_000  # after this time no worker is still sending what it claimed: XAUTOCLAIM takes 35 s
)
FIRST_RETRY_MS = 1_000  # for what the MQTT broker refused; doubled each time,
LAST_RETRY_MS = 60_000  # up to this
DOUBT_MS = 4_000  # for so long after a resend an alert is not in doubt: another worker did it
DOUBT_WINDOW_MS = 300_000
MOST_TRIES = 4  # for what may have been dropped: a device that never reads must not loop

_MEMBER = msgspec.json.encode(Member(part=Part.ALERTED))
_REASONS = {reason.value: reason for reason in AlertReason}
_AT_ONCE = 2_000  # Lua's unpack has a limit


class DeliveryState(enum.StrEnum):
    """The state of an alert."""

    CLAIMED = "claimed"
    SENT = "sent"
    REFUSED = "refused"
    DELIVERED = "delivered"
    EXPIRED = "expired"


_STATES = {
    "c": DeliveryState.CLAIMED,
    "s": DeliveryState.SENT,
    "r": DeliveryState.REFUSED,
    "x": DeliveryState.EXPIRED,
}


class Claimed(NamedTuple):
    """A recipient to be sent an alert now; `at` is when it was first claimed."""

    user: str
    wave: int
    reason: AlertReason
    at: datetime
    tries: int = 0
    code: str = "-"  # the MQTT broker's last answer


class AlertRecord(NamedTuple):
    """The record of one recipient; `code` is the PUBACK reason code's name."""

    user: str
    state: DeliveryState
    wave: int
    reason: AlertReason
    claimed_at: datetime
    at: datetime
    tries: int
    code: str | None


class AlertStore:
    """The alerts of one partition."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    # -- reading ----------------------------------------------------------------------------------

    async def of(self, incident: UUID) -> list[AlertRecord]:
        """Return the record of every recipient, in order of name."""
        transaction = Transaction(self._redis)
        transaction.call("HGETALL", self._keys.alerts(incident))
        transaction.call("HGETALL", self._keys.delivered(incident))
        results = await transaction.run()
        assert results is not None  # there are no guards
        filed, words = (dict(zip(row[::2], row[1::2], strict=True)) for row in results)
        return [_alerted(user, filed[user], words.get(user)) for user in sorted(filed)]

    async def alerted(self, incident: UUID) -> int:
        """Return how many people were alerted."""
        return int(await self._redis.call("HLEN", self._keys.alerts(incident)))

    async def due(self, now_ms: int, limit: int = 100) -> list[UUID]:
        """Return incidents whose unconfirmed alerts are due by `now_ms`."""
        rows = await self._redis.call(
            "ZRANGE", self._keys.unconfirmed, "-inf", now_ms, "BYSCORE", "LIMIT", 0, limit
        )
        return [UUID(row.decode()) for row in rows]

    async def unconfirmed(self) -> list[UUID]:
        """Return every incident that has unconfirmed alerts."""
        rows = await self._redis.call("ZRANGE", self._keys.unconfirmed, 0, -1)
        return [UUID(row.decode()) for row in rows]

    # -- committing -------------------------------------------------------------------------------

    # long: the keys and words of one script, one a line
    async def claim(
        self,
        incident: Incident,
        users: Sequence[str],
        *,
        reason: AlertReason,
        now: datetime,
        retention_s: int,
        unsent: bool = False,
    ) -> list[Claimed]:
        """Claim `users` as recipients; return those to send to now, each at most once ever.

        With `unsent`, also those who were claimed for this before and are not recorded as sent: a
        worker that died in between leaves them, and they may have moved since.
        """
        if not users and not unsent:
            return []
        now_ms, name = milliseconds(now), str(incident.id)
        alert = f"c {incident.wave} {reason} {now_ms} {now_ms} 0 -"
        rows = await self._redis.script(
            "claim",
            [
                self._keys.people(incident.id),
                self._keys.alerts(incident.id),
                self._keys.unconfirmed,
                self._keys.history(incident.id),
                self._keys.open_incidents,
            ],
            [
                _MEMBER,
                alert,
                name,
                now_ms,
                self._keys.involved(""),
                retention_s,
                now_ms + SENDING_MS,
                encoded(incident_history.alerted(incident, reason, now)),
                "all" if unsent else "",
                pack([*dict.fromkeys(users)]),
            ],
        )
        filed = alert.encode()
        alike = claimed("", filed)[1:]
        return [  # most are as they were just claimed, so decode once
            Claimed(rows[i].decode(), *alike)
            if rows[i + 1] == filed
            else claimed(rows[i].decode(), rows[i + 1])
            for i in range(0, len(rows), 2)
        ]

    async def record_alerts(
        self,
        incident: UUID,
        sent: Sequence[Claimed],
        refused: Sequence[Claimed],
        *,
        now: datetime,
        event: Event | None = None,
    ) -> None:
        """Record the MQTT broker's answer to each alert.

        `event` tells that the incident's counts have changed; None if the alerts were sent before.
        """
        now_ms = milliseconds(now)
        transaction = Transaction(self._redis)
        transaction.require_present(
            self._keys.incident(incident)
        )  # otherwise it has been erased since
        for state, alerts in (("s", sent), ("r", refused)):
            words = _all_filed(state, alerts, now_ms)
            for first in range(0, len(words), _AT_ONCE):
                transaction.call(
                    "HSET", self._keys.alerts(incident), *words[first : first + _AT_ONCE]
                )
        # It may have ended since, and then no worker would look again.
        look_ms = now_ms + (FIRST_RETRY_MS if refused else SENDING_MS)
        transaction.call("ZADD", self._keys.unconfirmed, "LT", look_ms, str(incident))
        if event is not None:
            transaction.call("HINCRBY", self._keys.incident(incident), "v", 1)
            emit(transaction, event)
        await transaction.run()

    async def postpone(self, incident: UUID, *, until_ms: int) -> None:
        """Let no worker handle the unconfirmed alerts of `incident` until then."""
        await self._redis.call("ZADD", self._keys.unconfirmed, "XX", until_ms, str(incident))

    async def confirm(self, incident: UUID, user: str, now: datetime) -> None:
        """Record that the device of `user` has confirmed the alert."""
        transaction = Transaction(self._redis)
        transaction.require_present(self._keys.incident(incident))
        confirm(transaction, incident, user, now)
        await transaction.run()

    # long: the keys and words of one script, one a line
    async def sweep_unconfirmed(
        self,
        incident: UUID,
        *,
        now: datetime,
        lasts_s: int,
        doubted: bool = False,
    ) -> tuple[list[Claimed], int]:
        """Expire what is too late; return the alerts to send again now, and how many expired.

        Too late means `lasts_s` after the claim, or after the incident's end. Sent again are, each
        after its time, alerts that no worker has recorded and those that the MQTT broker refused;
        with `doubted` also those sent lately, less than `MOST_TRIES` times, and not confirmed. The
        next worker to ask does not get the same ones for a while.
        """
        now_ms = milliseconds(now)
        again, expired = await self._redis.script(
            "unconfirmed",
            [
                self._keys.alerts(incident),
                self._keys.delivered(incident),
                self._keys.unconfirmed,
                self._keys.open_incidents,
                self._keys.history(incident),
            ],
            [
                str(incident),
                now_ms,
                lasts_s * 1000,
                SENDING_MS,
                FIRST_RETRY_MS,
                LAST_RETRY_MS,
                now_ms - DOUBT_WINDOW_MS if doubted else now_ms + 1,
                DOUBT_MS,
                MOST_TRIES,
                encoded(incident_history.Note("expired", now, _EXPIRED)),
            ],
        )
        unsent = [claimed(again[i].decode(), again[i + 1]) for i in range(0, len(again), 2)]
        return unsent, int(expired)


_EXPIRED = f"{incident_history.COUNT} alerts were not confirmed by their devices in time"


def confirm(transaction: Transaction, incident: UUID, user: str, now: datetime) -> None:
    """Add to `transaction` that the device of `user` has confirmed the alert of `incident`."""
    transaction.call("HSETNX", transaction.keys.delivered(incident), user, milliseconds(now))


def forget(transaction: Transaction, incident: UUID) -> None:
    """Add to `transaction` that the alerts of an erased incident are no longer due."""
    transaction.call("ZREM", transaction.keys.unconfirmed, str(incident))


def end(transaction: Transaction, incident: UUID) -> None:
    """Add to `transaction` that `incident` has ended, so undelivered alerts expire."""
    transaction.call("ZADD", transaction.keys.unconfirmed, "XX", 0, str(incident))


def _all_filed(state: str, alerts: Iterable[Claimed], now_ms: int) -> list[str]:
    """Return users and their alerts' stored values, alternating; most values are equal."""
    alike: dict[tuple[object, ...], str] = {}
    words: list[str] = []
    for alert in alerts:
        filed = alike.get(key := alert[1:])
        if filed is None:
            filed = alike[key] = (
                f"{state} {alert.wave} {alert.reason} {milliseconds(alert.at)} {now_ms}"
                f" {alert.tries + 1} {alert.code}"
            )
        words += (alert.user, filed)
    return words


def claimed(user: str, filed: bytes) -> Claimed:
    """Return an alert from the fields of its hash."""
    _, wave, reason, claimed_ms, _, tries, code = filed.decode().split()
    return Claimed(user, int(wave), _REASONS[reason], moment_of(claimed_ms), int(tries), code)


def _alerted(user: bytes, filed: bytes, confirmed_ms: bytes | None) -> AlertRecord:
    state, wave, reason, claimed_ms, at_ms, tries, code = filed.decode().split()
    return AlertRecord(
        user=user.decode(),
        state=DeliveryState.DELIVERED if confirmed_ms else _STATES[state],
        wave=int(wave),
        reason=_REASONS[reason],
        claimed_at=moment_of(claimed_ms),
        at=moment_of(confirmed_ms or at_ms),
        tries=int(tries),
        code=None if code == "-" else code,
    )
