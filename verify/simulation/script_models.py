"""The store's scripts as a model: the same meaning as `broker/store/kernel/scripts/*.lua`, in Python.

Written from what the scripts are for, not line by line; tests/simulation runs both side by side.
"""

# long: one script after another

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from h3.api import basic_int as h3

from broker.core.grid import DISTRICT_RESOLUTION, distance_m
from verify.simulation.redis_model import Database, Word, raw
from verify.simulation.strings import unpacked

Script = Callable[[Database, Sequence[str], Sequence[Word]], Any]

_FILED = re.compile(rb"(\S+) (\S+) (\S+) (\d+) (\d+) (\S+)")
_OVERLAP_MS = 10_000  # presence.lua: how far back an old place still counts


def commit(database: Database, _: Sequence[str], words: Sequence[Word]) -> list[Any]:
    """All guards hold: all calls are made. One does not: nothing is."""
    guards, calls, references = unpacked(raw(words[0]))
    for number, (kind, key, *rest) in enumerate(guards, 1):
        if not _holds(database, kind, key, *rest):
            return [0, number]
    results: list[Any] = [1]
    for number, call in enumerate(calls, 1):
        if isinstance(call[0], list):
            keys, (command, _key, *rest) = call
            for key in keys:
                database.execute(command.replace(b"UNFILE", b"HDEL").decode(), key, *rest)
                if command == b"UNFILE" and [*(database.value(key) or {})] == [b"#"]:
                    database.do_del(key)
            results.append(1)
        else:
            command, *rest = call
            results.append(database.execute(command.decode(), *rest))
        for earlier, later in references:
            if earlier == number:
                calls[later - 1][-1] = results[number]
    return results


def _holds(database: Database, kind: bytes, key: bytes, *words: Any) -> bool:
    if kind == b"absent":
        return database.value(key) is None
    if kind == b"present":
        return database.value(key) is not None
    if kind == b"clear":
        return not _near(database, key, *words)
    field, wanted = words
    if kind == b"field":
        return bool((database.do_hget(key, field) or b"") == wanted)
    assert kind == b"score", kind
    return bool((database.do_zscore(key, field) or b"") == wanted)


def neighbourhood(database: Database, keys: Sequence[str], words: Sequence[Word]) -> list[Any]:
    """The report's receipt, the marker of its place, and the incidents it may join."""
    prefix, *where = words
    near = _near(database, raw(keys[1]), *where)
    rows = [database.do_hmget(raw(prefix) + incident, b"v", b"incident") for incident in near]
    marker = database.do_hget(raw(keys[1]), b"#") or b""
    found = [row for row in rows if row[0]]
    elsewhere = [name for name, row in zip(near, rows, strict=True) if not row[0]]
    return [database.do_hgetall(raw(keys[0])), marker, found, elsewhere]


def _near(database: Database, key: bytes, *where: Word) -> list[bytes]:
    """The open incidents of `key` within so many metres of (lat, lon): `where` is all three."""
    lat, lon, metres = map(float, where)
    entries: dict[bytes, bytes] = database.value(key) or {}
    return [
        incident
        for incident, place in entries.items()
        if incident != b"#" and distance_m(lat, lon, *map(float, place.split())) <= metres
    ]


def near(database: Database, keys: Sequence[str], _: Sequence[Word]) -> list[Any]:
    """Everybody who is filed under these cells."""
    found: list[Any] = []
    for number, key in enumerate(keys, 1):
        if row := database.do_hgetall(raw(key)):
            found += [number, row]
    return found


def claim(database: Database, keys: Sequence[str], words: Sequence[Word]) -> list[bytes]:
    """Each user once: claimed now, or claimed before for the same reason and not yet sent."""
    people, alerts, unconfirmed, history, open_incidents = map(raw, keys)
    member, alert, incident, now, prefix, lifetime, look, note = map(raw, words[:8])
    if database.do_zscore(open_incidents, incident) is None:
        return []
    cause, new, claimed = alert.split()[:3], 0, []
    users = unpacked(raw(words[9]))
    if words[8] == "all":
        for user, filed in (database.value(alerts) or {}).items():
            if user not in users and filed.split()[:3] == cause:
                claimed += [user, filed]
    for user in users:
        if database.do_hsetnx(people, user, member):
            database.do_hset(alerts, user, alert)
            database.do_zadd(prefix + user, now, incident)
            database.do_expire(prefix + user, lifetime)
            claimed += [user, alert]
            new += 1
        elif (filed := database.do_hget(alerts, user)) and filed.split()[:3] == cause:
            claimed += [user, filed]
    if new:
        database.do_zadd(unconfirmed, b"LT", look, incident)
        database.do_rpush(history, note.replace(b"{count}", b"%d" % new))
    return claimed


def unconfirmed(database: Database, keys: Sequence[str], words: Sequence[Word]) -> list[Any]:
    """What no device has confirmed: expired when too late, else returned when its time has come."""
    alerts, delivered, watch, open_incidents, history = map(raw, keys)
    incident, note = raw(words[0]), raw(words[9])
    now, lifetime = int(words[1]), int(words[2])
    is_open = database.do_zscore(open_incidents, incident) is not None
    again: list[bytes] = []
    expired, looks = 0, []
    for user, filed in list((database.value(alerts) or {}).items()):
        parts = filed.split()
        if parts[0] == b"x" or database.do_hexists(delivered, user):
            continue
        ends = int(parts[3]) + lifetime
        if not is_open or ends <= now:
            database.do_hset(alerts, user, b" ".join((b"x", *parts[1:4], b"%d" % now, *parts[5:])))
            expired += 1
            continue
        retry = _retry_at(parts, words)
        if retry <= now:
            again += [user, filed]
            parts[4] = b"%d" % now
            database.do_hset(alerts, user, b" ".join(parts))
            retry = _retry_at(parts, words)
        looks.append(ends if parts[0] == b"s" else min(ends, retry))
    if looks:
        database.do_zadd(watch, b"%d" % min(looks), incident)
    else:
        database.do_zrem(watch, incident)
    if expired:
        database.do_rpush(history, note.replace(b"{count}", b"%d" % expired))
    return [again, expired]


def _retry_at(parts: Sequence[bytes], words: Sequence[Word]) -> float:
    """When an alert is sent again: `parts` are state, wave, reason, claimed, at, tries, code."""
    sending, first, last, doubt, settled, most = (int(word) for word in words[3:9])
    state, claimed, at, tries = parts[0], int(parts[3]), int(parts[4]), int(parts[5])
    if state == b"c":
        return at + sending
    if state == b"r":
        return at + min(last, int(first * 2.0 ** (tries - 1)))
    if claimed < doubt or tries >= most:
        return math.inf
    return at if tries < 2 else at + settled


# long: one script, line for line
def bury(database: Database, keys: Sequence[str], words: Sequence[Word]) -> int:
    """Keep a dead letter or forget some; the oldest go when there is no more room or time."""
    letters, times, counts, shares, sizes = map(raw, keys)
    most, most_bytes, lifetime, most_of_one = (int(word) for word in words[:4])
    prefix, letter, at, body, share = map(raw, words[4:9])

    def forget(one: bytes) -> int:
        size = database.do_hstrlen(letters, one)
        if size:
            database.do_hdel(letters, one)
            database.do_zrem(times, one)
            database.do_hincrby(counts, b"bytes", b"%d" % -size)
            if its := database.do_hget(shares, one):
                database.do_hdel(shares, one)
                database.do_zrem(prefix + its, one)
                _add_score(database, sizes, its, -size)
        return int(size > 0)

    def drop(one: bytes) -> None:
        forget(one)
        database.do_hincrby(counts, b"dropped", b"1")

    forgotten = sum(forget(one) for one in map(raw, words[9:]))
    oldest = 0.0
    if letter:
        forgotten += forget(letter)
        own = prefix + share
        database.do_hset(letters, letter, body)
        database.do_hset(shares, letter, share)
        database.do_zadd(times, at, letter)
        database.do_hincrby(counts, b"bytes", b"%d" % len(body))
        _add_score(database, sizes, share, len(body))
        database.do_zadd(own, at, letter)
        database.do_pexpire(own, b"%d" % lifetime)
        for over in database.do_zrange(own, b"0", b"-1")[:-most_of_one]:
            drop(over)
        oldest = min(int(at), database.now_ms()) - lifetime
    while rows := database.do_zrange(times, b"0", b"0", b"WITHSCORES"):
        size = int(database.do_hget(counts, b"bytes") or 0)
        if float(rows[1]) < oldest:
            drop(rows[0])
        elif database.do_zcard(times) > most or size > most_bytes:
            largest = database.do_zrange(sizes, b"0", b"0", b"REV")[0]
            drop(database.do_zrange(prefix + largest, b"0", b"0")[0])
        else:
            break
    return forgotten


def _add_score(database: Database, key: bytes, member: bytes, by: int) -> None:
    score = int(float(database.do_zscore(key, member) or 0)) + by
    if score > 0:
        database.do_zadd(key, b"%d" % score, member)
    else:
        database.do_zrem(key, member)


def presence(database: Database, _: Sequence[str], words: Sequence[Word]) -> list[Any]:
    """File each place unless it is older than the one in effect; tell whom it brings near what."""
    prefix, now, lifetime = raw(words[0]), int(words[1]), int(words[2])
    hits: list[Any] = []
    updates = unpacked(raw(words[3]))
    for number, first in enumerate(range(0, len(updates), 9)):
        hits += _place(database, prefix, (now, lifetime), number, updates[first : first + 9])
    return hits


def _place(  # noqa: PLR0917 - as the script has it
    database: Database, prefix: bytes, times: tuple[int, int], number: int, update: Sequence[Word]
) -> list[Any]:
    now, lifetime = times
    user, bucket, cell, child, how, at, said = map(raw, update[:7])
    where = prefix + b"where:" + bucket
    filed = _FILED.fullmatch(database.do_hget(where, user) or b"")
    withdrew = filed[6] if filed else b"-"
    if filed:
        hidden, old_at = filed[3][:1] in (b"m", b"w"), int(filed[4])
        if not _counts((int(at), said, cell == b""), (old_at, withdrew, hidden)):
            return []
        if filed[1] == b"-" and not hidden and cell not in (b"", b">") and int(at) == old_at:
            return []  # the place that was crossed from stays forgotten
    if cell == b"":
        at, withdrew = b"%d" % max(int(at), int(filed[4]) if filed else 0), said
    entry = b" ".join((child, how, at))
    old = filed[1] if filed else b"-"
    if old not in (b"-", cell):
        database.do_hdel(prefix + b"at:" + old, user)
    hits: list[Any] = []
    had = filed if filed and old != b"-" and int(filed[4]) > now - lifetime else None
    since = int(had[5]) - _OVERLAP_MS if had else 0
    if cell in (b"", b">"):
        database.do_hset(where, user, b" ".join((b"-", entry, b"%d" % now, withdrew)))
        looks_back = cell == b">"
    else:
        key = prefix + b"at:" + cell
        database.do_hset(key, user, entry)
        database.do_pexpire(key, b"%d" % lifetime)
        database.do_hset(where, user, b" ".join((cell, entry, b"%d" % now, withdrew)))
        looks_back = not had or (old, had[2]) != (cell, child) or int(at) == int(had[4])
        if looks_back:
            found = _look(database, prefix, user, cell, (number, 0, b"new"))
            hits += [hit for hit in found if _may_reach(hit[2], update[7:])]
    if had and looks_back:
        hits += _look(database, prefix, user, old, (number, since, old + b" " + had[2]))
    database.do_pexpire(where, b"%d" % lifetime)
    return hits


def _counts(new: tuple[int, bytes, bool], old: tuple[int, bytes, bool]) -> bool:
    """Whether an update counts: `new` has its time, the device's and whether it withdraws.

    `old` has the time filed, what the last withdrawal said, and whether it is in force.
    """
    (at, said, withdraws), (old_at, withdrew, hidden) = new, old
    if withdraws:
        return said != withdrew
    return int(said) > old_at if hidden else at >= old_at


def _look(  # noqa: PLR0917
    database: Database, prefix: bytes, user: bytes, cell: bytes, asked: tuple[int, int, bytes]
) -> list[Any]:
    number, since, place = asked
    district = b"%x" % h3.cell_to_parent(int(cell, 16), DISTRICT_RESOLUTION)
    around: dict[bytes, bytes] = database.value(prefix + b"open:" + district) or {}
    return [
        [number, incident, entry, place]
        for incident, entry in around.items()
        if int(entry.rpartition(b" ")[2]) >= since
        and float(entry.split()[2]) > 0
        and not database.do_hexists(prefix + b"people:" + incident, user)
    ]


def _may_reach(entry: bytes, centre: Sequence[Word]) -> bool:
    lat, lon, radius_m, _ = map(float, entry.split())
    return distance_m(lat, lon, *map(float, centre)) <= radius_m + 1


def sweep(database: Database, keys: Sequence[str], words: Sequence[Word]) -> int:
    """Forget whose time, the word at that position, is over."""
    key, position, oldest = raw(keys[0]), int(words[0]), int(words[1])
    people: dict[bytes, bytes] = database.value(key) or {}
    stale = [user for user, row in people.items() if int(row.split()[position - 1]) <= oldest]
    return database.do_hdel(key, *stale) if stale else 0


def missed(database: Database, keys: Sequence[str], words: Sequence[Word]) -> list[Any]:
    """The newest incidents of a user, at a glance, in which something may be new to them."""
    prefix, user = map(raw, words[:2])
    since, before, at_most = (int(word) for word in words[2:])
    involved = database.do_zrange(raw(keys[0]), b"%d" % -at_most, b"-1", b"WITHSCORES")
    found: list[Any] = []
    for name, alerted in zip(involved[::2], map(float, involved[1::2]), strict=True):
        told = int(database.do_hget(prefix + b"incident:" + name, b"told") or 0)
        is_new = max(alerted, told) >= since
        alert = database.do_hget(prefix + b"alerts:" + name, user)
        alert = alert if is_new or alerted < before else None
        delivered = alert is not None and database.do_hexists(prefix + b"delivered:" + name, user)
        person = database.do_hget(prefix + b"people:" + name, user)
        if person and (is_new or (alert is not None and not delivered)):
            events = database.do_llen(prefix + b"group:" + name)
            of = database.do_hget(prefix + b"incident:" + name, b"of") or name
            is_open = database.do_zscore(raw(keys[1]), of) is not None
            found.append([name, told, alert, int(delivered), person, events, int(is_open)])
    return found


def moved(database: Database, _: Sequence[str], words: Sequence[Word]) -> list[int]:
    """In which partition each user was, or that an update does not count."""
    prefix, lifetime = raw(words[0]), raw(words[1])
    before: list[int] = []
    for first in range(2, len(words), 5):
        user, bucket, partition, at, said = map(raw, words[first : first + 5])
        key = prefix + b"home:" + bucket
        filed = database.do_hget(key, user)
        old, old_at, state, withdrew = (filed or b"-1 0 + -").split()
        known = int(old_at), withdrew, state == b"-"
        if filed and not _counts((int(at), said, not partition), known):
            before.append(-2)
            continue
        if partition and state == b"+" and filed and int(at) == int(old_at):
            if int(partition) < int(old):
                before.append(-2)
                continue
            before.append(-3 if partition == old else int(old))
        else:
            before.append(int(old))
        state = b"+" if partition else b"-"
        if not partition:
            at, withdrew = b"%d" % max(int(at), int(old_at)), said
        database.do_hset(key, user, b" ".join((partition or old, at, state, withdrew)))
        database.do_pexpire(key, lifetime)
    return before


def worker(database: Database, keys: Sequence[str], words: Sequence[Word]) -> int:
    """A worker's record is changed if it, its beat and that of another are as they were read."""
    workers, beats = map(raw, keys)
    name, was, beat, shall, other, theirs = map(raw, words)
    guards = ((workers, name, was), (beats, name, beat), (workers, other, theirs if other else b""))
    if any(wanted and database.do_hget(key, field) != wanted for key, field, wanted in guards):
        return 0
    if not shall:
        database.do_hdel(workers, name)
        database.do_hdel(beats, name)
        return 1
    database.do_hset(workers, name, shall)
    database.do_hset(beats, name, b"%d" % database.now_ms())
    return 1


def rebase(database: Database, keys: Sequence[str], words: Sequence[Word]) -> int:
    """What is due at a time moves along with a clock that has jumped, once."""
    jump, *dues = map(raw, keys)
    until, by, kept = map(raw, words)
    last = database.do_get(jump)
    if last is not None and abs(int(until) - int(last.split()[0])) < 60_000:
        return 0
    database.do_set(jump, until + b" " + by, b"PX", kept)
    for key in dues:
        rows = database.do_zrange(key, b"0", b"-1", b"WITHSCORES")
        for member, score in zip(rows[::2], rows[1::2], strict=True):
            database.do_zadd(key, b"%d" % (int(float(score)) + int(by)), member)
    return 1


def forget(database: Database, keys: Sequence[str], words: Sequence[Word]) -> int:
    """A consumer is deleted unless it has something in hand."""
    group, consumer = map(raw, words)
    found = database.stream(raw(keys[0])).groups[group]
    if any(holder == consumer for holder, _ in found.pending.values()):
        return 0
    found.consumers.pop(consumer, None)
    return 1


SCRIPTS: dict[str, Script] = {
    "commit": commit,
    "neighbourhood": neighbourhood,
    "near": near,
    "claim": claim,
    "unconfirmed": unconfirmed,
    "bury": bury,
    "presence": presence,
    "sweep": sweep,
    "missed": missed,
    "moved": moved,
    "worker": worker,
    "rebase": rebase,
    "forget": forget,
}
