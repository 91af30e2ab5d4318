"""One incident, step by step: what a witness sends, and what a neighbour and the police see of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from broker.core.grid import distance_m
from devices.participant import Broker, Confirm, Listeners, Participant
from devices.police_desk import PoliceDesk
from nabij.output import console_err, say, say_wrapped
from schemas.ids import new_id
from schemas.messages import (
    Alert,
    EmergencyCall,
    Escalation,
    GroupEvent,
    GroupEventKind,
    Position,
    Receipt,
    ReplyKind,
    Report,
    Status,
)
from schemas.taxonomy import Language

WITNESS, NEIGHBOUR, FAR_AWAY = "ann", "bob", "cleo"
ACTORS = (WITNESS, NEIGHBOUR, FAR_AWAY)
ZONE = "gent"
WITHIN_S = 15.0
READING_S = 3.0  # on a terminal, for each step

# Along the Coupure in Ghent, away from the crowd.
FIRE = Position(lat=51.0521, lon=3.7090, accuracy_m=10.0)
HOME = Position(lat=51.0531, lon=3.7097)
ELSEWHERE = Position(lat=51.0359, lon=3.7107)
WORDS = "Smoke from a second-floor window."

T = TypeVar("T")


@dataclass
class Story:
    """Plays it on the desk of Ghent; `told` prints what happened, `explain` how to look it up."""

    broker: Broker
    passwords: Callable[[str], str]
    explain: Callable[[UUID], str]
    escalations: "asyncio.Queue[tuple[Escalation, float]]" = field(default_factory=asyncio.Queue)
    report: Report = field(
        default_factory=lambda: Report(
            id=new_id(),
            category="fire",
            location=FIRE,
            seen_at=datetime.now(UTC),
            text=WORDS,
            language=Language.EN,
            emergency_call=EmergencyCall.NOT_CALLED,
        )
    )
    _alerts: "asyncio.Queue[tuple[Alert, float]]" = field(default_factory=asyncio.Queue)
    _heard: "asyncio.Queue[GroupEvent]" = field(default_factory=asyncio.Queue)

    @asynccontextmanager
    async def _actors(self) -> AsyncIterator[tuple[Participant, Participant]]:
        """Connect the witness, the neighbour near the fire, and a participant who is far away."""
        on = {
            WITNESS: Listeners(on_group=lambda event, _: self._heard.put_nowait(event)),
            NEIGHBOUR: Listeners(on_alert=lambda *alert: self._alerts.put_nowait(alert)),
            FAR_AWAY: Listeners(),
        }
        async with AsyncExitStack() as stack:
            ann, bob, cleo = [
                await stack.enter_async_context(
                    Participant(user, self.passwords(user), self.broker, listeners=on[user])
                )
                for user in ACTORS
            ]
            await bob.presence(HOME, confirm=Confirm.YES)
            await cleo.presence(ELSEWHERE, confirm=Confirm.YES)
            yield ann, bob

    async def play(self, desk: PoliceDesk) -> Receipt:
        """Tell it from the report to the end; return the report's receipt.

        Raises:
            TimeoutError: something did not come.
            NotConfirmed, MessageRejected: a device's message was not accepted.
        """
        async with self._actors() as (ann, bob):
            sent_at = time.time()
            receipt = await ann.report(self.report)
            incident = receipt.incident
            assert incident is not None, "an accepted report has its incident"
            _step("1 The witness", f"Ann sees smoke in Ghent. Her phone reports a fire: “{WORDS}”")
            _tell(
                f"{_after(sent_at, time.time())} later it has the receipt: the report is on disk. "
                f"The phone says: “{receipt.advice}”"
            )
            await _pause()
            await self._neighbour(sent_at)
            await self._police(sent_at, desk, incident)
            await self._group(bob, desk, incident)
            await self._end(desk, incident)
        return receipt

    async def _neighbour(self, sent_at: float) -> None:
        alert, received_at = await _soon(self._alerts.get())
        metres = distance_m(HOME.lat, HOME.lon, alert.location.lat, alert.location.lon)
        _step(
            "2 The neighbour",
            f"Bob lives nearby. {_after(sent_at, received_at)} after the report his phone shows: "
            f"“{alert.names.en}, {metres:.0f} m from you. {alert.advice.en}”",
        )
        told = (
            f"It shows Ann's words too, as the policy allows for this category: “{alert.text}”"
            if alert.text
            else "It does not show Ann's words."
        )
        _tell(f"{told} It never shows her name. Cleo, 2 km away, is not alerted.")
        await _pause()

    async def _police(self, sent_at: float, desk: PoliceDesk, incident: UUID) -> None:
        escalation, received_at = await _soon(self.escalations.get())
        _step(
            "3 The police",
            f"{_after(sent_at, received_at)} after the report the desk of {escalation.zone} reads: "
            f"“{escalation.priority} {escalation.category}: {escalation.text}” with the place and "
            "what is known of a call to 112. The desk acknowledges it and sends a unit.",
        )
        await desk.acknowledge(incident)
        await desk.assign(incident, "Delta 1")
        await _pause()

    async def _group(self, bob: Participant, desk: PoliceDesk, incident: UUID) -> None:
        _step("4 The group", "Bob accepts: he can be there in two minutes. Ann's phone shows:")
        await bob.reply(incident, ReplyKind.ACCEPTED, eta_s=120)
        _quote(await self._next(GroupEventKind.JOINED, "helper-1"))
        await bob.say(incident, "I keep people away from the door.")
        _quote(await self._next(GroupEventKind.SAID, "helper-1"))
        await desk.inform(incident, "The fire brigade is on its way. Keep your distance.")
        _quote(await self._next(GroupEventKind.SAID, "police"))
        _tell("They know each other by these names only, and only in this incident.")
        await _pause()

    async def _end(self, desk: PoliceDesk, incident: UUID) -> None:
        await desk.set_status(incident, Status.ON_SCENE)
        await desk.close(incident, "The fire is out, nobody is hurt.")
        ended = await self._next(GroupEventKind.CLOSED, "police")
        _step("5 The end", f"The police close it: “{ended.text}” Everyone alerted is told so.")
        _tell("Why was Bob alerted, and Cleo not? Ask in another terminal:")
        say(f"  {self.explain(incident)}")
        await _pause()

    async def _next(self, kind: GroupEventKind, member: str) -> GroupEvent:
        while True:
            event = await _soon(self._heard.get())
            if (event.kind, event.member) == (kind, member):
                return event


async def _soon(coming: Awaitable[T]) -> T:
    async with asyncio.timeout(WITHIN_S):
        return await coming


async def _pause() -> None:
    if console_err.is_terminal:
        await asyncio.sleep(READING_S)


def _after(began_at: float, ended_at: float) -> str:
    return f"{max(1.0, (ended_at - began_at) * 1_000):.0f} ms"


def _step(title: str, text: str) -> None:
    say(f"\n{title}")
    _tell(text)


def _quote(event: GroupEvent) -> None:
    said = f": “{event.text}”" if event.text else f" ({event.members} in the group)"
    _tell(f"{event.member} {event.kind}{said}", indent="    ")


def _tell(text: str, indent: str = "  ") -> None:
    say_wrapped(text, indent)
