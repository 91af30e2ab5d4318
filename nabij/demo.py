"""`nabij demo`: the whole of Nabij at work, with a simulated crowd and three police desks.

Always on embedded servers of its own: a demonstration never reaches a real desk.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from broker.config import Settings
from broker.core.policy import Policy
from broker.core.zones import UNASSIGNED, ZoneKind
from devices.connection import Broker
from devices.crowd import Crowd
from devices.history import HeardCase
from devices.participant import NotConfirmed, Participant, Rejected
from devices.police import PoliceDesk
from devices.watch import Login, case_watch
from nabij.datadir import CITY_DESK, desk_of
from nabij.desks import LIVELY, QUICK, Pace, answer_escalations
from nabij.journal import Journal, Sent
from nabij.live import View
from nabij.output import print_json, say
from nabij.policy_file import policy_at
from nabij.scenes import Scene, crowd_tracks, endless, fixed, warming_up
from nabij.stack import Stack
from schemas.messages import Alert, Escalation, GroupEvent, IncidentState, Question, Report

WITNESSES = 12
TIME_SCALE = 8.0  # the crowd decides and walks that much faster than people do
WARM_UP_TIMEOUT_S = 8.0
END_TIMEOUT_S = 12.0
LOOK_S = 0.05


@dataclass(frozen=True)
class Options:
    """What `nabij demo` was asked."""

    once: bool
    seed: int
    people: int
    as_json: bool


async def run_demo(settings: Settings, workers: Mapping[str, int], options: Options) -> bool:
    """Play; return whether what must have happened has. Endless unless it is to be once."""
    crowd = [f"p-{number:04}" for number in range(1, options.people + 1)]
    witnesses = [f"w-{number:02}" for number in range(1, WITNESSES + 1)]
    own = replace(settings, mqtt_url=None, redis_url=None, policy=None)
    async with AsyncExitStack() as acquired:
        stack = Stack(own, workers=workers, participants=[*crowd, *witnesses], say=say)
        await acquired.enter_async_context(stack)
        await stack.wait_ready()
        say(f"ready: {', '.join(worker.name for worker in stack.supervisor.workers)}")
        demo = Demo(stack, options, acquired.enter_context(View()))
        async with demo.populated(crowd, witnesses):
            problems = await demo.run()
    return _tell(demo.journal.summary(demo.accepted), problems, options)


class Demo:
    """The devices of a demonstration, and what they saw."""

    def __init__(self, stack: Stack, options: Options, view: View) -> None:
        self.journal = Journal()
        self._stack = stack
        self._options = options
        self._view = view
        self._policy: Policy = policy_at(None)
        self._broker = Broker.from_url(stack.mqtt_url_for(CITY_DESK))
        self._witnesses: list[Participant] = []
        self._accepted_before = 0
        self._crowd: Crowd
        self._tasks: asyncio.TaskGroup

    @property
    def accepted(self) -> int:
        """How many of the crowd have accepted an alert since the warming up."""
        return self._crowd.tally.accepted - self._accepted_before

    async def run(self) -> list[str]:
        """Warm up, play, wait for the consequences, and return what is missing of them."""
        await self._play(warming_up(self._options.seed))
        await self._settled(WARM_UP_TIMEOUT_S)
        self.journal, self._accepted_before = Journal(), self._crowd.tally.accepted
        self._view.follow(lambda: self.journal.summary(self.accepted))
        await self._play((fixed if self._options.once else endless)(self._options.seed))
        return await self._settled(END_TIMEOUT_S)

    async def _play(self, scenes: Iterable[Scene]) -> None:
        for scene in scenes:
            await asyncio.sleep(scene.after_s)
            witness = self._witnesses[scene.witness % len(self._witnesses)]
            report = scene.report()
            self._view.reported(report, scene.place.name)
            name = f"{witness.user} reports {report.id}"
            self._tasks.create_task(self._send(witness, report, self.journal), name=name)

    async def _send(self, witness: Participant, report: Report, journal: Journal) -> None:
        category = self._policy.category(report.category)
        assert category is not None, "the scenes know the shipped policy"
        sent = journal.sent[report.id] = Sent(report, category.desk, time.time())
        try:
            sent.receipt = await witness.report(report)
            sent.receipt_at = time.time()
        except (Rejected, NotConfirmed) as failure:
            journal.failures.append(f"a report was not confirmed: {failure}")

    async def _settled(self, timeout_s: float) -> list[str]:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.journal.missing(self.accepted):  # noqa: ASYNC110 - many things at once
                    await asyncio.sleep(LOOK_S)
        return self.journal.missing(self.accepted)

    # Who is there

    @contextlib.asynccontextmanager
    async def populated(
        self, crowd: Sequence[str], witnesses: Sequence[str]
    ) -> AsyncIterator[None]:
        """Connect everybody: the desks, the city, the witnesses, the crowd."""
        pace = QUICK if self._options.once else LIVELY
        zones = [zone.id for zone in self._stack.zones if zone.kind is ZoneKind.POLICE]
        async with AsyncExitStack() as acquired, asyncio.TaskGroup() as self._tasks:
            desks = [
                await acquired.enter_async_context(self._desk(zone))
                for zone in (*zones, UNASSIGNED)
            ]
            await acquired.enter_async_context(self._city())
            for user in witnesses:
                self._witnesses.append(await acquired.enter_async_context(self._witness(user)))
            self._crowd = self._crowd_of(crowd)
            await acquired.enter_async_context(self._crowd)
            say(f"{len(crowd)} people are out and about")
            answering = [
                self._tasks.create_task(self._answer(desk, pace), name="a desk answers")
                for desk in desks
            ]
            yield
            for task in answering:
                task.cancel()

    def _desk(self, zone: str) -> PoliceDesk:
        user = desk_of(zone)
        return PoliceDesk(
            user,
            self._stack.credentials[user],
            self._broker,
            zones=[zone],
            on_escalation=self._escalated,
            on_state=self._changed,
        )

    async def _answer(self, desk: PoliceDesk, pace: Pace) -> None:
        fail = self.journal.failures.append
        await answer_escalations(desk, pace, self._options.seed, fail)

    def _city(self) -> contextlib.AbstractAsyncContextManager[object]:
        login = Login(CITY_DESK, self._stack.credentials[CITY_DESK])
        return case_watch(login, self._broker, device="demo", on_case=self._cased)

    def _witness(self, user: str) -> Participant:
        witness = Participant(
            user,
            self._stack.credentials[user],
            self._broker,
            on_group=self._grouped,
            on_question=lambda question, _: self._asked(witness, question),
        )
        return witness

    def _crowd_of(self, users: Sequence[str]) -> Crowd:
        return Crowd(
            self._broker,
            {user: self._stack.credentials[user] for user in users},
            crowd_tracks(len(users), self._options.seed),
            seed=self._options.seed,
            time_scale=TIME_SCALE,
            on_alert=self._alerted,
        )

    # What they hear

    def _escalated(self, escalation: Escalation, received_at: float) -> None:
        self.journal.escalation(escalation, received_at)
        self._view.escalated(escalation)

    def _changed(self, state: IncidentState, _: float) -> None:
        self._view.changed(state)

    def _cased(self, case: HeardCase) -> None:
        self.journal.case(case.report)
        self._view.cased(case)

    def _alerted(self, _: str, alert: Alert, received_at: float) -> None:
        self.journal.alert(alert, received_at)

    def _grouped(self, event: GroupEvent, _: float) -> None:
        if self.journal.group(event):  # each witness of an incident hears the whole group
            self._view.grouped(event)

    def _asked(self, witness: Participant, question: Question) -> None:
        self._tasks.create_task(
            _answered(witness, question), name=f"{witness.user} answers {question.id}"
        )


async def _answered(witness: Participant, question: Question) -> None:
    # An incident may close before its reporter has typed the answer.
    with contextlib.suppress(Rejected, NotConfirmed):
        await witness.answer(question.id, "Ja, dat heb ik gezien. Ik blijf op afstand.")


def _tell(
    summary: Mapping[str, int | float | None], problems: Sequence[str], options: Options
) -> bool:
    for problem in problems:
        say(f"failed: {problem}")
    if options.as_json:
        print_json({"ok": not problems, **summary, "problems": problems})
    else:
        say(", ".join(f"{name} {value}" for name, value in summary.items()))
    return not problems
