"""Redis as a model: the commands that the store uses, on plain dictionaries, one at a time.

Values are bytes, as on the wire. tests/simulation holds it against a real server.
"""

# long: one command after another

# ruff: noqa: D102 (each `do_…` is the Redis command of that name)

from collections.abc import Callable, Sequence
from typing import Any

from broker.store.kernel.pipeline import CommandRefused

Word = bytes | str | int | float

_SETTINGS = {b"appendonly": b"yes", b"appendfsync": b"always", b"maxmemory-policy": b"noeviction"}


def raw(word: Word) -> bytes:
    """Return `word` as it goes over the wire."""
    if isinstance(word, bytes):
        return word
    if isinstance(word, float):
        return repr(word).encode()
    return str(word).encode()


def score_text(score: float) -> bytes:
    """Return a score as Redis prints it."""
    return b"%d" % score if score == int(score) else repr(score).encode()


class ConsumerGroup:
    """A consumer group: how far it has read, and who holds what since when (ms)."""

    def __init__(self) -> None:
        self.last = 0
        self.pending: dict[int, tuple[bytes, float]] = {}
        self.consumers: dict[bytes, float] = {}  # and when it was last seen (ms)


class StreamModel:
    """A stream: entries by number, in order."""

    def __init__(self) -> None:
        self.entries: dict[int, list[bytes]] = {}
        self.last = 0
        self.groups: dict[bytes, ConsumerGroup] = {}


class WrongCommandError(Exception):
    """The model does not know this command: teach it, in the same change that brings it."""


class Database:
    """The data of one server. `now_ms` tells the time, `on_change` hears which key was written to."""

    def __init__(self, now_ms: Callable[[], float], on_change: Callable[[bytes], None]) -> None:
        self.data: dict[bytes, Any] = {}
        self.now_ms = now_ms
        self._on_change = on_change
        self._expires: dict[bytes, float] = {}
        self._commands: dict[Word, Callable[..., Any]] = {
            name.removeprefix("do_").upper(): getattr(self, name) for name in _COMMANDS
        }

    def execute(self, *words: Word) -> Any:
        """Carry out one command and return its answer."""
        method = self._commands.get(words[0])
        if method is None:
            raise WrongCommandError(words[0])
        return method(*map(raw, words[1:]))

    def value(self, key: bytes) -> Any:
        """Return what a key holds, or None."""
        due = self._expires.get(key)
        if due is not None and due <= self.now_ms():
            self.do_del(key)
        return self.data.get(key)

    def hash(self, key: bytes) -> dict[bytes, bytes]:
        """Return the hash under `key` to write to."""
        found: dict[bytes, bytes] | None = self.value(key)
        if found is None:
            found = self.data[key] = {}
        return found

    def zset(self, key: bytes) -> dict[bytes, float]:
        """Return the sorted set under `key` to write to."""
        found: dict[bytes, float] | None = self.value(key)
        if found is None:
            found = self.data[key] = {}
        return found

    def _drop_if_empty(self, key: bytes) -> None:
        if not self.data.get(key, True):
            self.do_del(key)

    # -- keys -------------------------------------------------------------------------------------

    def do_del(self, *keys: bytes) -> int:
        found = 0
        for key in keys:
            found += self.data.pop(key, None) is not None
            self._expires.pop(key, None)
        return found

    def do_exists(self, *keys: bytes) -> int:
        return sum(self.value(key) is not None for key in keys)

    def do_expire(self, key: bytes, seconds: bytes) -> int:
        return self.do_pexpire(key, b"%d" % (int(seconds) * 1000))

    def do_pexpire(self, key: bytes, ms: bytes) -> int:
        if self.value(key) is None:
            return 0
        self._expires[key] = self.now_ms() + int(ms)
        return 1

    def do_persist(self, key: bytes) -> int:
        return int(self._expires.pop(key, None) is not None)

    def do_get(self, key: bytes) -> bytes | None:
        found: bytes | None = self.value(key)
        return found

    def do_set(self, key: bytes, value: bytes, *options: bytes) -> bytes | None:
        if b"NX" in options and self.value(key) is not None:
            return None
        self.data[key] = value
        self._expires.pop(key, None)
        if b"PX" in options:
            self.do_pexpire(key, options[options.index(b"PX") + 1])
        return b"OK"

    def do_incr(self, key: bytes) -> int:
        number = int(self.value(key) or 0) + 1
        self.data[key] = b"%d" % number
        return number

    def do_scan(self, cursor: bytes, *options: bytes) -> list[Any]:
        assert cursor == b"0"
        prefix = options[options.index(b"MATCH") + 1].rstrip(b"*")
        return [b"0", [key for key in list(self.data) if key.startswith(prefix)]]

    def do_pttl(self, key: bytes) -> int:
        if self.value(key) is None:
            return -2
        due = self._expires.get(key)
        return -1 if due is None else int(due - self.now_ms())

    # -- the server -------------------------------------------------------------------------------

    def do_cluster(self, *_: bytes) -> None:
        raise CommandRefused("ERR This instance has cluster support disabled")

    def do_time(self) -> list[bytes]:
        now_ms = int(self.now_ms())
        return [b"%d" % (now_ms // 1000), b"%d" % (now_ms % 1000 * 1000)]

    def do_config(self, _get: bytes, name: bytes) -> list[bytes]:
        return [name, _SETTINGS[name]]

    def do_info(self, _section: bytes) -> bytes:
        return b"aof_last_write_status:ok\r\n"

    def do_ping(self) -> bytes:
        return b"PONG"

    # -- hashes -----------------------------------------------------------------------------------

    def do_hset(self, key: bytes, *pairs: bytes) -> int:
        fields = self.hash(key)
        before = len(fields)
        for index in range(0, len(pairs), 2):
            fields[pairs[index]] = pairs[index + 1]
        return len(fields) - before

    def do_hsetnx(self, key: bytes, field: bytes, value: bytes) -> int:
        fields = self.hash(key)
        if field in fields:
            return 0
        fields[field] = value
        return 1

    def do_hget(self, key: bytes, field: bytes) -> bytes | None:
        return (self.value(key) or {}).get(field)

    def do_hmget(self, key: bytes, *fields: bytes) -> list[bytes | None]:
        found = self.value(key) or {}
        return [found.get(field) for field in fields]

    def do_hgetall(self, key: bytes) -> list[bytes]:
        return [word for pair in (self.value(key) or {}).items() for word in pair]

    def do_hvals(self, key: bytes) -> list[bytes]:
        return list((self.value(key) or {}).values())

    def do_hkeys(self, key: bytes) -> list[bytes]:
        return list(self.value(key) or {})

    def do_hstrlen(self, key: bytes, field: bytes) -> int:
        return len((self.value(key) or {}).get(field, b""))

    def do_hexists(self, key: bytes, field: bytes) -> int:
        return int(field in (self.value(key) or {}))

    def do_hlen(self, key: bytes) -> int:
        return len(self.value(key) or {})

    def do_hdel(self, key: bytes, *fields: bytes) -> int:
        found = self.value(key) or {}
        gone = sum(found.pop(field, None) is not None for field in fields)
        self._drop_if_empty(key)
        return gone

    def do_hincrby(self, key: bytes, field: bytes, by: bytes) -> int:
        fields = self.hash(key)
        number = int(fields.get(field, b"0")) + int(by)
        fields[field] = b"%d" % number
        return number

    # -- lists ------------------------------------------------------------------------------------

    def do_rpush(self, key: bytes, *items: bytes) -> int:
        row = self.value(key)
        if row is None:
            row = self.data[key] = []
        row.extend(items)
        return len(row)

    def do_llen(self, key: bytes) -> int:
        return len(self.value(key) or [])

    def do_ltrim(self, key: bytes, first: bytes, last: bytes) -> bytes:
        if (kept := self.do_lrange(key, first, last)) or key in self.data:
            self.data[key] = kept
        self._drop_if_empty(key)
        return b"OK"

    def do_lrange(self, key: bytes, first: bytes, last: bytes) -> list[bytes]:
        row: list[bytes] = self.value(key) or []
        start, end = int(first), int(last)
        start = max(0, len(row) + start) if start < 0 else start
        end = len(row) + end if end < 0 else end
        return row[start : end + 1]

    # -- sorted sets ------------------------------------------------------------------------------

    def do_zadd(self, key: bytes, *words: bytes) -> int:
        only = words[0] if words[0] in (b"XX", b"NX", b"LT") else b""
        pairs = words[1:] if only else words
        members = self.zset(key)
        before, changed = len(members), False
        for index in range(0, len(pairs), 2):
            score, known = float(pairs[index]), members.get(pairs[index + 1])
            if score == known:
                continue
            if (only == b"XX" and known is None) or (only == b"NX" and known is not None):
                continue
            if only == b"LT" and known is not None and known <= score:
                continue
            members[pairs[index + 1]] = score
            changed = True
        added = len(members) - before
        self._drop_if_empty(key)
        if changed:
            self._on_change(key)
        return added

    def do_zrem(self, key: bytes, *members: bytes) -> int:
        found = self.value(key) or {}
        gone = sum(found.pop(member, None) is not None for member in members)
        self._drop_if_empty(key)
        if gone:
            self._on_change(key)
        return gone

    def do_zremrangebyrank(self, key: bytes, first: bytes, last: bytes) -> int:
        rows = self.do_zrange(key, b"0", b"-1")
        end = int(last) + len(rows) if int(last) < 0 else int(last)
        return self.do_zrem(key, *rows[int(first) : end + 1])

    def do_zcard(self, key: bytes) -> int:
        return len(self.value(key) or {})

    def do_zcount(self, key: bytes, first: bytes, last: bytes) -> int:
        scores = (self.value(key) or {}).values()
        return sum(float(first) <= score <= float(last) for score in scores)

    def do_zscan(self, key: bytes, cursor: bytes, *options: bytes) -> list[Any]:
        del cursor, options
        return [b"0", self.do_zrange(key, b"0", b"-1", b"WITHSCORES")]

    def do_zscore(self, key: bytes, member: bytes) -> bytes | None:
        score = (self.value(key) or {}).get(member)
        return None if score is None else score_text(score)

    def do_zmscore(self, key: bytes, *members: bytes) -> list[bytes | None]:
        return [self.do_zscore(key, member) for member in members]

    def do_zremrangebyscore(self, key: bytes, first: bytes, last: bytes) -> int:
        return self.do_zrem(key, *self.do_zrange(key, first, last, b"BYSCORE"))

    def do_zrange(self, key: bytes, first: bytes, last: bytes, *options: bytes) -> list[bytes]:
        members: dict[bytes, float] = self.value(key) or {}
        rows = sorted((score, member) for member, score in members.items())
        if b"BYSCORE" in options:
            low, high = float(first), float(last)
            if b"REV" in options:
                low, high = high, low
            rows = [row for row in rows if low <= row[0] <= high]
        if b"REV" in options:
            rows.reverse()
        if b"BYSCORE" not in options:
            end = int(last)
            rows = rows[int(first) :] if end == -1 else rows[int(first) : end + 1]
        if b"LIMIT" in options:
            at = options.index(b"LIMIT")
            skip, count = int(options[at + 1]), int(options[at + 2])
            rows = rows[skip:] if count < 0 else rows[skip : skip + count]
        if b"WITHSCORES" in options:
            return [word for score, member in rows for word in (member, score_text(score))]
        return [member for _, member in rows]

    # -- streams ----------------------------------------------------------------------------------

    def stream(self, key: bytes) -> StreamModel:
        """Return the stream under `key`, made if there is none."""
        found: StreamModel | None = self.value(key)
        if found is None:
            found = self.data[key] = StreamModel()
        return found

    def do_xgroup(self, _create: bytes, key: bytes, group: bytes, *_rest: bytes) -> bytes:
        groups = self.stream(key).groups
        if group in groups:
            raise CommandRefused("BUSYGROUP Consumer Group name already exists")
        groups[group] = ConsumerGroup()
        return b"OK"

    def do_xinfo(self, _consumers: bytes, key: bytes, group: bytes) -> list[Any]:
        found = self.stream(key).groups[group]
        held = [holder for holder, _ in found.pending.values()]
        return [
            [b"name", name, b"pending", held.count(name), b"idle", int(self.now_ms() - seen)]
            for name, seen in found.consumers.items()
        ]

    def do_xpending(self, key: bytes, group: bytes, *words: bytes) -> list[Any]:
        pending = self.stream(key).groups[group].pending
        if not words:
            return [len(pending)]
        _, _, count, name = words
        mine = [number for number, held in sorted(pending.items()) if held[0] == name]
        return [[b"%d-0" % number] for number in mine[: int(count)]]

    def do_xclaim(self, key: bytes, group: bytes, consumer: bytes, *words: bytes) -> list[Any]:
        stream, idle = self.stream(key), int(words[0])
        holder, now = stream.groups[group], self.now_ms()
        holder.consumers[consumer] = now
        ours = []
        for number in map(_number, words[1:]):
            held = holder.pending.get(number)
            if held is None or now - held[1] < idle:
                continue
            if number in stream.entries:
                holder.pending[number] = (consumer, now)
                ours.append(number)
            else:
                del holder.pending[number]
        return self._rows(stream, ours)

    def do_xadd(self, key: bytes, *words: bytes) -> bytes:
        stream = self.stream(key)
        stream.last += 1
        stream.entries[stream.last] = list(words[words.index(b"*") + 1 :])
        self._on_change(key)
        return b"%d-0" % stream.last

    def do_xlen(self, key: bytes) -> int:
        return len(self.stream(key).entries)

    def do_xdel(self, key: bytes, *identifiers: bytes) -> int:
        entries = self.stream(key).entries
        return sum(entries.pop(_number(one), None) is not None for one in identifiers)

    def do_xack(self, key: bytes, group: bytes, *identifiers: bytes) -> int:
        pending = self.stream(key).groups[group].pending
        return sum(pending.pop(_number(one), None) is not None for one in identifiers)

    def do_xreadgroup(self, *words: bytes) -> list[Any] | None:
        group, consumer = words[1], words[2]
        count = int(words[words.index(b"COUNT") + 1])
        key, after = words[-2:]
        stream = self.stream(key)
        holder = stream.groups[group]
        holder.consumers[consumer] = self.now_ms()
        if after == b">":
            found = [n for n in stream.entries if n > holder.last][:count]
            for number in found:
                holder.pending[number] = (consumer, self.now_ms())
                holder.last = number
            if found:
                self._on_change(key)
            return [[key, self._rows(stream, found)]] if found else None
        mine = [n for n, held in sorted(holder.pending.items()) if held[0] == consumer]
        return [[key, self._rows(stream, mine[:count])]]

    def do_xautoclaim(self, key: bytes, group: bytes, consumer: bytes, *words: bytes) -> list[Any]:
        stream, idle, count = self.stream(key), int(words[0]), int(words[3])
        pending = stream.groups[group].pending
        now = self.now_ms()
        stream.groups[group].consumers[consumer] = now
        stale = [n for n, (_, since) in sorted(pending.items()) if now - since >= idle][:count]
        gone = [number for number in stale if number not in stream.entries]
        for number in gone:
            del pending[number]
        ours = [number for number in stale if number in stream.entries]
        for number in ours:
            pending[number] = (consumer, now)
        return [b"0-0", self._rows(stream, ours), [b"%d-0" % number for number in gone]]

    @staticmethod
    def _rows(stream: StreamModel, numbers: Sequence[int]) -> list[Any]:
        return [[b"%d-0" % number, stream.entries.get(number)] for number in numbers]


_COMMANDS = [name for name in vars(Database) if name.startswith("do_")]


def _number(identifier: bytes) -> int:
    return int(identifier.partition(b"-")[0])
