"""Falls upon the world: each strike in its turn, when so much has been done and all is whole."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Self

from msgspec.structs import replace

from devices.participant import Broker, Listeners, MessageRejected, NotConfirmed, Participant
from schemas.ids import new_id
from schemas.messages import Position, Receipt, Report
from schemas.taxonomy import Audience
from verify.chaos.chaos_device import EvidentJournal
from verify.chaos.chaos_log import Blow, Log, Started
from verify.chaos.chaos_reports import GHENT
from verify.chaos.chaos_world import ChaosWorld
from verify.chaos.logged_device import DeviceListener
from verify.chaos.mqtt_clients import Publisher
from verify.chaos.plan import Strike, Victim
from verify.oracle.observations import (
    ReportCreated,
)

WHOLE_S = 8.0  # so long a strike waits until what fell before it stands again
PROBE_S = 3.0
AT_PUBACK = 0.5  # of the deaths of the MQTT broker, drawn as the pick that it has no other use for
GAP_S = 0.3  # a death takes a moment to be seen
LOOK_S = 0.02


class ReceiptProbe:
    """A device of our own: its receipt is the signal for Redis's death (I6)."""

    def __init__(self, world: ChaosWorld) -> None:
        self._log = Log(world.logs / "probe.jsonl")
        self._heard = DeviceListener("probe", self._log)
        self._journal = EvidentJournal(world.directory / "journals" / "probe.journal", self._log)
        self._on_receipt: Callable[[], None] | None = None
        self._device = Participant(
            "probe",
            world.accounts["probe"].password,
            Broker.from_url(world.broker_url),
            journal=self._journal,
            listeners=Listeners(
                on_receipt=self._heard.receipt,
                on_group=self._heard.group_event,
                on_question=self._heard.question,
            ),
        )
        self._late_tasks: set[asyncio.Task[None]] = set()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._stack.enter_context(self._log)
        self._log.write(Started(t=time.time(), process="probe"))
        await self._stack.enter_async_context(self._journal)
        await self._stack.enter_async_context(self._device)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._late_tasks:
            task.cancel()
        await self._stack.aclose()

    async def receipt_then(self, kill: Callable[[], None]) -> None:
        """Report something, and `kill` in the instant of its receipt; also when none comes."""
        report = Report(
            id=new_id(),
            category="fight",
            location=Position(*GHENT),
            seen_at=datetime.now(UTC),
            audience=Audience.POLICE,
        )
        created = ReportCreated.of(report, t=time.time(), user="probe")
        self._log.write(replace(created, probe=True))
        sending = asyncio.create_task(self._device.report(report), name="probe")
        sending.add_done_callback(lambda _: kill())
        late = asyncio.create_task(self._file_when_done(sending), name="probe's receipt")
        self._late_tasks.add(late)
        late.add_done_callback(self._late_tasks.discard)
        await asyncio.wait({sending}, timeout=PROBE_S)
        kill()

    async def _file_when_done(self, sending: "asyncio.Task[Receipt]") -> None:
        with contextlib.suppress(NotConfirmed):
            try:
                self._heard.receipt(await sending)
            except MessageRejected as error:
                self._heard.receipt(error.receipt)


class Striker:
    """Carries out the strikes; `blows` are those that fell.

    Redis dies of a receipt. The MQTT broker dies of a PUBACK, if that promises something; each
    second time it dies at any moment.
    """

    def __init__(
        self,
        world: ChaosWorld,
        probe: ReceiptProbe,
        publisher: Publisher | None,
        share_done: Callable[[], float],
    ) -> None:
        self._world = world
        self._probe = probe
        self._publisher = publisher
        self._share_done = share_done
        self._log = Log(world.logs / "strikes.jsonl")
        self.blows: list[Blow] = []

    async def strike_all(self, strikes: Sequence[Strike]) -> None:
        """Strike, one after another."""
        with self._log:
            for strike in strikes:
                await self._in_turn(strike)

    async def _in_turn(self, strike: Strike) -> None:
        await _until(lambda: self._share_done() >= strike.share)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WHOLE_S):
                await _until(lambda: self._world.whole)
        await self._strike(strike)
        await asyncio.sleep(GAP_S)

    async def _strike(self, strike: Strike) -> None:
        await _until(lambda: self._world.pid_of(strike) is not None)
        pid = self._world.pid_of(strike)
        assert pid is not None
        name = next((name for name, each in self._world.processes().items() if each == pid), "")
        if strike.pause_s is not None:
            self._note(strike, name)
            await _paused(pid, strike.pause_s)
        elif strike.victim == Victim.REDIS:
            await self._probe.receipt_then(self._once(strike, name, pid))
        elif (
            strike.victim == Victim.MQTT and self._publisher is not None and strike.pick < AT_PUBACK
        ):
            await self._publisher.acknowledgement_then(self._once(strike, name, pid))
        else:
            self._once(strike, name, pid)()

    def _once(self, strike: Strike, name: str, pid: int) -> Callable[[], None]:
        killed: list[int] = []

        def kill() -> None:
            if not killed:
                killed.append(pid)
                _send(pid, signal.SIGKILL)
                self._note(strike, name)

        return kill

    def _note(self, strike: Strike, process: str) -> None:
        blow = Blow(time.time(), strike.victim, process, strike.pause_s)
        self.blows.append(blow)
        self._log.write(blow)


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - it looks at other processes, who set no event
        await asyncio.sleep(LOOK_S)


async def _paused(pid: int, pause_s: float) -> None:
    _send(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(pause_s)
    finally:
        _send(pid, signal.SIGCONT)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
