"""Questions across partitions: positions, what a user missed, and borders.

No script touches two partitions. So what follows from a write in another partition is written after
it, and again by the service that reads the event: each such write may be repeated.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import overload
from uuid import UUID

import structlog

from broker.core.changes import Routes, WalkedIn
from broker.core.grid import PLACE_RESOLUTION, cover, place_of, region_of
from broker.core.incidents import Incident
from broker.core.recipients import Located
from broker.errors import ConfigError
from broker.store import place_index
from broker.store.kernel.isolation import isolated
from broker.store.kernel.keys import Keys, partition_of, partition_of_incident, partition_of_user
from broker.store.kernel.nodes import Nodes, OpenRedis
from broker.store.kernel.pipeline import RedisPipeline
from broker.store.kernel.redis_connection import ANSWER_S
from broker.store.outbox_messages import OutboxMessage, Reader, Undelivered
from broker.store.positions import Before, Hit, Update
from broker.store.receipt_records import KnownReceipt
from broker.store.store import Opening, Store
from broker.store.stored_incident import StoredIncident
from broker.store.sync_rows import SyncEvents, SyncRow
from schemas.ids import new_id
from schemas.messages import Position, Question

LOCK_S = 3.0  # how long at most a border is locked, and waited for
_LOCKED_S = 0.02
_log = structlog.get_logger()


class Partitions(Sequence[Store]):
    """All partitions in order, each with its number."""

    def __init__(self, stores: Sequence[Store], dice: random.Random | None = None) -> None:
        self._partitions = stores
        self._count = len(stores)
        self._dice = dice or random.Random()  # noqa: S311 - jitter
        for store in stores:
            store.share(self.first)

    @overload
    def __getitem__(self, number: int) -> Store: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Store]: ...
    def __getitem__(self, number: int | slice) -> Store | Sequence[Store]:
        return self._partitions[number]

    def __len__(self) -> int:
        return self._count

    @property
    def first(self) -> Store:
        """The first partition, which has what exists once: zones, workers, dead letters, alarms."""
        return self._partitions[0]

    def of(self, incident: UUID) -> Store:
        """Return the partition of an incident, or of a question about one."""
        return self._partitions[partition_of_incident(incident, self._count)]

    def at(self, lat: float, lon: float) -> Store:
        """Return the partition of a place."""
        return self._partitions[self._of_cell(place_of(lat, lon))]

    def _of_cell(self, cell: int) -> int:
        return partition_of(region_of(cell), self._count) if self._count > 1 else 0

    # -- where people are -------------------------------------------------------------------------

    async def update(self, updates: Sequence[Update], *, now_ms: int, presence_s: int) -> list[Hit]:
        """Apply a batch in order; return the users whom open incidents may now reach.

        When a user crosses a border, the old place is forgotten as of the time of the new one, so
        an older update that comes later changes nothing there. A withdrawal or a repeat goes to all
        partitions: one may still have a place if its writer died before it removed it.
        """
        if self._count == 1:
            [only] = self._partitions
            return await only.presence.update(updates, now_ms=now_ms, presence_s=presence_s)
        shares: dict[int, list[Update]] = defaultdict(list)
        for update, before in zip(
            updates, await self._moved(updates, now_ms, presence_s), strict=True
        ):
            if before is Before.LATER:
                continue
            here = self._partition_of(update)
            for number in range(self._count) if here is None else (here,):
                shares[number].append(update)
            if here is not None:
                for number in self._left(here, before):
                    shares[number].append(_crossed(update, now_ms, wins=here > number))
        several = await asyncio.gather(
            *(
                self._partitions[number].presence.update(
                    share, now_ms=now_ms, presence_s=presence_s
                )
                for number, share in shares.items()
            )
        )
        return [hit for hits in several for hit in hits]

    def _left(self, here: int, before: int | Before | None) -> Sequence[int]:
        """Return the partitions that may still have the old place of a user who is `here`."""
        if before is Before.SAME:
            return [number for number in range(self._count) if number != here]
        return [before] if isinstance(before, int) and before != here else []

    async def _moved(
        self, updates: Sequence[Update], now_ms: int, presence_s: int
    ) -> "list[int | Before | None]":
        """Record each user's partition; return the one before (None: none)."""
        shares: dict[int, list[int]] = defaultdict(list)
        for number, update in enumerate(updates):
            shares[partition_of_user(update.user, self._count)].append(number)
        before: list[int | Before | None] = [None] * len(updates)

        async def look(partition: int, numbers: Sequence[int]) -> None:
            moves = [(updates[number], self._partition_of(updates[number])) for number in numbers]
            found = await self._partitions[partition].presence.moved(
                moves, now_ms=now_ms, presence_s=presence_s
            )
            for number, was_in in zip(numbers, found, strict=True):
                before[number] = was_in

        await asyncio.gather(*(look(*share) for share in shares.items()))
        return before

    def _partition_of(self, update: Update) -> int | None:
        return None if update.place is None else self._of_cell(update.place)

    async def put(self, events: Iterable[WalkedIn]) -> None:
        """Put events on the streams of their incidents' partitions."""
        shares: dict[int, list[WalkedIn]] = defaultdict(list)
        for event in events:
            shares[partition_of_incident(event.incident, self._count)].append(event)
        for number, share in shares.items():
            await self._partitions[number].events.put(share)

    async def near(self, cells: Iterable[int]) -> list[Located]:
        """Return all users who are filed under these cells of resolution 9."""
        if self._count == 1:
            return await self._partitions[0].presence.near(tuple(cells))
        shares: dict[int, list[int]] = defaultdict(list)
        for cell in cells:
            shares[self._of_cell(cell)].append(cell)
        several = await asyncio.gather(
            *(self._partitions[number].presence.near(share) for number, share in shares.items())
        )
        # A user who is crossing a border may be found on both sides: the later place counts.
        found: dict[str, Located] = {}
        for located in (one for people in several for one in people):
            known = found.get(located.user)
            if known is None or located.seen_ms >= known.seen_ms:
                found[located.user] = located
        return list(found.values())

    # -- what was missed --------------------------------------------------------------------------

    async def missed(
        self, user: str, since: datetime, at_most: int, *, told_before: timedelta
    ) -> list[SyncRow]:
        """Return what `user` may have missed, as `SyncStore.since`, in all partitions."""
        several = await asyncio.gather(
            *(
                one.missed.since(user, since, at_most, told_before=told_before)
                for one in self._partitions
            )
        )
        return [glimpse for some in several for glimpse in some]

    async def questions(self, user: str, since: datetime) -> list[Question]:
        """Return what `user` was asked since, in all partitions."""
        asking = (one.missed.questions(user, since) for one in self._partitions)
        return [question for some in await asyncio.gather(*asking) for question in some]

    async def read(self, glimpses: Iterable[SyncRow]) -> dict[UUID, SyncEvents]:
        """Return the group events of these incidents, without those that were erased."""
        found: dict[UUID, SyncEvents] = {}
        for number, share in _shares(glimpses).items():
            found |= await self._partitions[number].missed.read(share)
        return found

    async def confirm(self, glimpses: Iterable[SyncRow], user: str, now: datetime) -> None:
        """Record that the device of `user` says it has these alerts."""
        for number, share in _shares(glimpses).items():
            await self._partitions[number].missed.confirm(share, user, now)

    async def asked(self, home: Store, question: UUID) -> tuple[Store, str, Question] | None:
        """Return the user who was asked a question, and its partition, `home` or another.

        A reporter's question names the region of their report, which may have joined an incident
        beyond a border.
        """
        for store in (home, *(one for one in self._partitions if one is not home)):
            if found := await store.questions.get(question):
                return store, *found
        return None

    async def holding(self, home: Store, conversation: UUID) -> Store | None:
        """Return the partition of a conversation that is not in `home`."""
        for store in self._partitions:
            if store is not home and await store.conversations.is_here(conversation):
                return store
        return None

    # -- what desks and users were sent -----------------------------------------------------------

    async def delivered(
        self, said: Mapping[Reader, Collection[str]], *, now_ms: int, duty: Reader | None
    ) -> list[OutboxMessage]:
        """Remove what its readers confirm from every outbox; see `Outbox.confirm`."""
        several = await asyncio.gather(
            *(one.outbox.confirm(said, now_ms=now_ms, duty=duty) for one in self._partitions)
        )
        return [message for messages in several for message in messages]

    async def send_again(self, reader: Reader, *, but: Collection[str]) -> int:
        """Have all sent now that `reader` has not confirmed, except `but`; return how many."""
        several = (one.outbox.send_again(reader, but=but) for one in self._partitions)
        return sum(await asyncio.gather(*several))

    async def undelivered(self) -> dict[Reader, Undelivered]:
        """Return which desks have not confirmed what was sent to them."""
        found: dict[Reader, Undelivered] = {}
        for some in await asyncio.gather(*(one.outbox.undelivered() for one in self._partitions)):
            for one in some:
                found[one.reader] = one.merged(found.get(one.reader))
        return found

    # -- over borders -----------------------------------------------------------------------------

    def around(self, location: Position, metres: float) -> list[Store]:
        """Return the partitions around a place, in order; none if it is far from every border."""
        if self._count == 1:
            return []
        cells = cover(location.lat, location.lon, metres, PLACE_RESOLUTION)
        numbers = sorted({self._of_cell(cell) for cell in cells})
        return [self._partitions[number] for number in numbers] if len(numbers) > 1 else []

    @asynccontextmanager
    async def locked(self, partitions: Sequence[Store], what: str) -> AsyncIterator[None]:
        """Hold the lock on `what` at the borders of these partitions, for some seconds.

        A worker that has waited too long goes on without the lock: two incidents instead of one are
        no loss.
        """
        token, held = str(new_id()), []
        try:
            async with asyncio.timeout(LOCK_S):
                for store in partitions:
                    while not await store.locks.lock(what, token, LOCK_S):  # noqa: ASYNC110 - another process
                        await asyncio.sleep(self._dice.uniform(0, _LOCKED_S))
                    held.append(store)
        except TimeoutError:
            _log.warning("a border is held for too long", what=what)
        try:
            yield
        finally:
            for store in held:
                await store.locks.unlock(what, token)

    async def incidents(self, identifiers: Iterable[UUID]) -> list[Incident]:
        """Return these incidents from their partitions, without those that were erased."""

        async def get(identifier: UUID) -> StoredIncident | None:
            return await self.of(identifier).incidents.get(identifier)

        several = await asyncio.gather(
            *(isolated(one, get, what="an incident near a report") for one in identifiers)
        )
        return [filed.incident for filed in several if filed is not None]

    async def received(self, home: Store, message: UUID) -> KnownReceipt | None:
        """Return what became of a report of `home`, which may have been routed elsewhere."""
        received, routed = await home.incidents.received_or_routed(message)
        if routed is None:
            return received
        return await self.partition_of(routed).incidents.received(message)

    def partition_of(self, region: int) -> Store:
        """Return the partition of a region."""
        return self._partitions[partition_of(region, self._count)]

    def beyond(self, incident: Incident) -> list[Store]:
        """Return the other partitions that have cells around `incident`."""
        if self._count == 1:
            return []
        cells = (*place_index.joining_cells(incident), *place_index.reached_districts(incident))
        home = self.of(incident.id).keys.partition
        numbers = sorted({self._of_cell(cell) for cell in cells} - {home})
        return [self._partitions[number] for number in numbers]

    async def add_beyond(self, incident: Incident) -> None:
        """Let reports and people beyond the borders find an open incident.

        It may have closed since, and its removal there may have come first.
        """
        for store in self.beyond(incident):
            transaction = store.transaction()
            place_index.add_joinable(transaction, incident)
            place_index.add_reached(transaction, incident)
            await transaction.run()
            if not await self.of(incident.id).incidents.is_open(incident.id):
                await self.remove_beyond(incident)

    async def remove_beyond(self, incident: Incident) -> None:
        """Remove a closed incident from the index beyond the borders."""
        for store in self.beyond(incident):
            transaction = store.transaction()
            place_index.remove(transaction, incident)
            await transaction.run()


def _shares(glimpses: Iterable[SyncRow]) -> dict[int, list[UUID]]:
    """Return the incidents of each partition."""
    shares: dict[int, list[UUID]] = defaultdict(list)
    for one in glimpses:
        shares[one.partition].append(one.incident)
    return shares


@asynccontextmanager
async def open_partitions(
    url: str,
    count: int = 1,
    *,
    opening: Opening = Opening.USE,
    routes: Routes | None = None,
    open_redis: OpenRedis = RedisPipeline,
    dice: random.Random | None = None,
) -> AsyncIterator[Partitions]:
    """Connect to all `count` partitions of the Redis, or the Redis Cluster, at `url`.

    `routes` say which services read which events; without them none can be written.

    Raises:
        UnavailableError: Redis cannot be reached.
        ConfigError: the data was filed in another number of partitions, or by a newer release.
    """
    nodes = Nodes(url, answer_s=ANSWER_S, open_redis=open_redis)
    stores = [Store(url, Keys(number, count), nodes, routes=routes) for number in range(count)]
    partitions = Partitions(stores, dice)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(nodes.close)
        for store in stores:
            await stack.enter_async_context(store)
        await _opened(stores, opening)
        yield partitions


async def _opened(stores: Sequence[Store], opening: Opening) -> None:
    first = stores[0]
    found = await first.partition_count()
    _refuse_count(found, len(stores))
    if opening is Opening.READ:
        await first.schema.version(is_used=found is not None)  # an older one is read as it is
        return
    # In this order: a process that finds a partition count finds the version too.
    await first.schema.prepare([store.schema for store in stores], is_used=found is not None)
    _refuse_count(await first.claim(), len(stores))


def _refuse_count(found: int | None, count: int) -> None:
    if found not in (count, None):
        raise ConfigError(
            [f"NABIJ_PARTITIONS: {count}; but what is in Redis is filed in {found}, for good"]
        )


def _crossed(update: Update, now_ms: int, *, wins: bool) -> Update:
    """Return what forgets the old place in the partition that was left.

    A place there of the same time is forgotten too if the new one `wins` (moved.lua).
    """
    at_ms = min(update.at_ms, now_ms) - (not wins)
    return Update(update.user, None, update.availability, at_ms, crossed=True)
