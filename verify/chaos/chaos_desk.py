"""The police's desks and the city's in a chaos run: they read everything and command a lot.

    python -m verify.chaos.chaos_desk ORDERS.json

Never killed: the police's log is the judge's. SIGUSR1: give no more commands, and say when the last
is answered. SIGUSR1 again: close every incident, and say when that is done. SIGTERM: end.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from uuid import UUID

import msgspec

from devices.city_desk import CityDesk
from devices.device_connection import Broker
from devices.police_desk import DeskListeners, MessageRejected, NotConfirmed, PoliceDesk
from schemas.ids import new_id
from schemas.messages import (
    Acknowledge,
    Ask,
    Assign,
    Case,
    Close,
    Escalation,
    EscalationKind,
    IncidentState,
    Inform,
    PoliceCommand,
    Receipt,
    Reporters,
    SetStatus,
    Status,
)
from verify.chaos.chaos_log import Log, Quiet
from verify.chaos.logged_device import on_signals, run_as_ordered
from verify.oracle.observations import (
    CaseSeen,
    CommandSent,
    EscalationSeen,
    ReceiptSeen,
    StateSeen,
)

IDLE = 0.1  # of the incidents nobody acknowledges: they become overdue
INFORMING, ASKING, ASSIGNING = 0.25, 0.25, 0.25
CLOSE_AFTER_S = (12.0, 40.0)
COMMANDING = 32  # at once


class DeskOrders(msgspec.Struct, frozen=True, kw_only=True):
    """Who the desks are: {zone: (user, password)} and the city's, for some municipalities."""

    directory: str
    broker: str
    zones: dict[str, tuple[str, str]]
    city: tuple[str, str]
    municipalities: list[str]
    seed: int

    @property
    def log(self) -> Path:
        """The evidence."""
        return Path(self.directory) / "desk.jsonl"


class ChaosDesk:
    """The desk of one zone."""

    def __init__(self, zone: str, orders: DeskOrders, log: Log) -> None:
        user, password = orders.zones[zone]
        self.zone = zone
        self._seed = orders.seed
        self._log = log
        self._handling: dict[UUID, asyncio.Task[None]] = {}
        self._late: set[UUID] = set()  # incidents that were heard of at ease
        self._at_ease = False
        self._closed: set[UUID] = set()
        self._few = asyncio.Semaphore(COMMANDING)
        self.desk = PoliceDesk(
            user,
            password,
            Broker.from_url(orders.broker),
            zones=[zone],
            listeners=DeskListeners(on_escalation=self._escalated, on_state=self._stated),
        )

    async def stand_at_ease(self) -> None:
        """Finish the commands that are on their way, and give no other."""
        self._at_ease = True
        for handling in self._handling.values():
            handling.cancel()
        await asyncio.gather(*self._handling.values(), return_exceptions=True)

    async def close_all(self) -> None:
        """Close every incident that was ever escalated here."""
        still_open = (self._handling.keys() | self._late) - self._closed
        await asyncio.gather(*map(self._close, still_open))

    def _escalated(self, escalation: Escalation, received_at: float) -> None:
        self._log.write(EscalationSeen.of(escalation, t=received_at, zone=self.zone))
        incident = escalation.incident
        if self._at_ease:
            self._late.add(incident)
        elif escalation.kind is not EscalationKind.OVERDUE and incident not in self._handling:
            handling = self._handle(incident, Random(f"{self._seed} {incident}"))
            self._handling[incident] = asyncio.create_task(handling, name=f"handle {incident}")

    def _stated(self, state: IncidentState, received_at: float) -> None:
        self._log.write(StateSeen.of(state, t=received_at, zone=self.zone))

    async def _handle(self, incident: UUID, random: Random) -> None:
        await asyncio.sleep(random.uniform(0.3, 4.0))
        if random.random() >= IDLE:
            for command in _commands(incident, random):
                await self._order(command)
                await asyncio.sleep(random.uniform(0.2, 3.0))
        await asyncio.sleep(random.uniform(*CLOSE_AFTER_S))
        await self._close(incident)

    async def _close(self, incident: UUID) -> None:
        outcome = f"closed {new_id()}"
        await self._order(Close(id=new_id(), incident=incident, by="chaos", outcome=outcome))
        self._closed.add(incident)

    async def _order(self, command: PoliceCommand) -> None:
        """Send one command until it is answered, also when this incident's handling is cut off."""
        sending = asyncio.ensure_future(self._send(command))
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            await sending
            raise

    async def _send(self, command: PoliceCommand) -> None:
        async with self._few:
            self._log.write(CommandSent.of(command, t=time.time(), zone=self.zone))
            receipt = await self._answered(command)
            if row := ReceiptSeen.of(receipt, t=time.time(), to=self.zone):
                self._log.write(row)

    async def _answered(self, command: PoliceCommand) -> Receipt:
        while True:
            try:
                return await self.desk.command(command, zone=self.zone)
            except MessageRejected as error:
                return error.receipt
            except NotConfirmed:
                continue


def _commands(incident: UUID, random: Random) -> Iterator[PoliceCommand]:
    yield Acknowledge(id=new_id(), incident=incident, by="chaos")
    if random.random() < INFORMING:
        yield Inform(id=new_id(), incident=incident, by="chaos", text=f"inform {new_id()}")
    if random.random() < ASKING:
        everyone, text = Reporters.ALL, f"ask {new_id()}"
        yield Ask(id=new_id(), incident=incident, by="chaos", text=text, reporters=everyone)
    if random.random() < ASSIGNING:
        yield Assign(id=new_id(), incident=incident, by="chaos", unit=f"unit {new_id()}")
        yield SetStatus(id=new_id(), incident=incident, by="chaos", status=Status.ON_SCENE)


def _city(orders: DeskOrders, log: Log) -> CityDesk:
    user, password = orders.city

    def take(case: Case, received_at: float) -> None:
        log.write(CaseSeen.of(case, t=received_at))

    return CityDesk(
        user,
        password,
        Broker.from_url(orders.broker),
        municipalities=orders.municipalities,
        on_case=take,
        device="chaos",
    )


async def watch(orders: DeskOrders) -> None:
    """Run all desks until SIGTERM."""
    hushed = asyncio.Semaphore(0)
    stop = on_signals(hushed.release)
    async with AsyncExitStack() as stack:
        log = stack.enter_context(Log(orders.log))
        desks = [ChaosDesk(zone, orders, log) for zone in orders.zones]
        for desk in desks:
            await stack.enter_async_context(desk.desk)
        await stack.enter_async_context(_city(orders, log))
        log.write(Quiet(t=time.time(), process="desk ready"))
        await hushed.acquire()
        await asyncio.gather(*(desk.stand_at_ease() for desk in desks))
        log.write(Quiet(t=time.time(), process="desk at ease"))
        await hushed.acquire()
        await asyncio.gather(*(desk.close_all() for desk in desks))
        log.write(Quiet(t=time.time(), process="desk"))
        await stop.wait()


if __name__ == "__main__":
    run_as_ordered(sys.argv[1:], DeskOrders, watch)
