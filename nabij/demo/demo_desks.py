"""How the police answer in the demonstration: acknowledge, assign, ask, inform, close."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from random import Random
from uuid import UUID

from devices.police_desk import MessageRejected, NotConfirmed, PoliceDesk
from schemas.messages import Escalation, EscalationKind, Status

UNITS = ("Delta 1", "Delta 2", "Bravo 4", "Fiets 7", "Hond 1")
QUESTIONS = (
    "Is er nog iemand in het gebouw?",
    "Welke kant liepen ze uit?",
    "Kunt u zelf veilig weg?",
)
HANDLED = "Ter plaatse afgehandeld, dank voor uw hulp."
OUTCOMES = {
    "fire": "De brand is geblust, niemand is gewond.",
    "medical": "De ziekenwagen heeft het slachtoffer meegenomen.",
    "traffic-accident": "Het slachtoffer is verzorgd, de weg is weer vrij.",
    "theft": "Verdachte aangehouden, dank voor uw hulp.",
    "robbery": "Verdachten aangehouden, dank voor uw hulp.",
    "fight": "De vechtenden zijn uit elkaar gehaald.",
}


@dataclass(frozen=True)
class Pace:
    """Range of seconds before each step, and the share of incidents with a question."""

    acknowledge_s: tuple[float, float]
    assign_s: tuple[float, float]
    inform_s: tuple[float, float]
    close_s: tuple[float, float]
    asking: float = 0.4


QUICK = Pace((0.3, 0.8), (0.3, 0.8), (0.5, 1.0), (2.5, 3.5))
LIVELY = Pace((1.0, 4.0), (2.0, 6.0), (3.0, 10.0), (15.0, 40.0))


async def answer_escalations(
    desk: PoliceDesk, pace: Pace, seed: int, on_failure: Callable[[str], None], *, leave: UUID
) -> None:
    """Handle every new incident on `desk`, concurrently, until cancelled; skip that of `leave`."""
    async with asyncio.TaskGroup() as tasks:
        while True:
            escalation = await desk.next_escalation()
            if escalation.kind is EscalationKind.NEW and escalation.report != leave:
                random = Random(f"{seed} {escalation.incident}")
                tasks.create_task(
                    _unless_failing(_handle(desk, escalation, pace, random), on_failure),
                    name=f"desk handles {escalation.incident}",
                )


async def _unless_failing(
    handling: Coroutine[None, None, None], tell: Callable[[str], None]
) -> None:
    try:
        await handling
    except (MessageRejected, NotConfirmed) as failure:
        tell(f"a command was not confirmed: {failure}")


async def _handle(desk: PoliceDesk, escalation: Escalation, pace: Pace, random: Random) -> None:
    incident = escalation.incident
    await asyncio.sleep(random.uniform(*pace.acknowledge_s))
    await desk.acknowledge(incident)
    await asyncio.sleep(random.uniform(*pace.assign_s))
    await desk.assign(incident, random.choice(UNITS))
    if random.random() < pace.asking:
        await desk.ask(incident, random.choice(QUESTIONS), escalation.report)
    await asyncio.sleep(random.uniform(*pace.inform_s))
    await desk.inform(incident, "Een ploeg is onderweg. Blijf op afstand.")
    await desk.set_status(incident, Status.ON_SCENE)
    await asyncio.sleep(random.uniform(*pace.close_s))
    await desk.close(incident, OUTCOMES.get(escalation.category, HANDLED))
