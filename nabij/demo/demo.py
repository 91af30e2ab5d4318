"""`nabij demo`: all of Nabij at work, with a simulated crowd and three police desks.

Always on its own embedded servers: a demonstration never reaches a real desk.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from broker.core.policy import Policy
from broker.core.zones import UNASSIGNED, ZoneKind
from broker.runtime.config import Settings
from devices.device_connection import Broker
from devices.participant import Listeners, MessageRejected, NotConfirmed, Participant
from devices.police_desk import DeskListeners, PoliceDesk
from nabij.demo.demo_desks import LIVELY, QUICK, Pace, answer_escalations
from nabij.demo.demo_log import DemoLog, DemoReport
from nabij.demo.live import View, in_words, short
from nabij.demo.scenes import Scene, crowd_tracks, endless, fixed, warming_up
from nabij.demo.story import ACTORS, ZONE, Story
from nabij.local.data_directory import CITY_DESK, desk_of
from nabij.local.mqtt_listeners import without_listeners
from nabij.local.opened_store import data_dir_option
from nabij.local.policy_file import policy_at
from nabij.local.stack import Stack
from nabij.output import print_json, program, say, say_wrapped
from schemas.messages import Alert, Escalation, GroupEvent, IncidentState, Question, Report
from verify.oracle.observations import CaseSeen
from verify.replay.replay_desk import CaseWatch, Login
from verify.world.crowd import Crowd, CrowdOptions

WITNESSES = 12
TIME_SCALE = 8.0  # the crowd decides and walks this much faster than people
WARM_UP_TIMEOUT_S = 8.0
END_TIMEOUT_S = 30.0
LOOK_S = 0.05


@dataclass(frozen=True)
class DemoOptions:
    """The options of `nabij demo`."""

    once: bool
    seed: int
    people: int
    as_json: bool


async def run_demo(settings: Settings, workers: Mapping[str, int], options: DemoOptions) -> bool:
    """Play, endlessly or once; return whether everything happened that must."""
    crowd = [f"p-{number:04}" for number in range(1, options.people + 1)]
    witnesses = [f"w-{number:02}" for number in range(1, WITNESSES + 1)]
    own = replace(without_listeners(settings), mqtt_url=None, redis_url=None, policy=None)
    async with AsyncExitStack() as acquired:
        stack = Stack(
            own, workers=workers, participants=[*crowd, *witnesses, *ACTORS], say=say_wrapped
        )
        await acquired.enter_async_context(stack)
        await stack.wait_ready()
        say_wrapped(f"ready: {', '.join(worker.name for worker in stack.supervisor.workers)}")
        demo = Demo(stack, options)
        try:
            async with demo.populated(crowd, witnesses):
                problems = await demo.run()
        except asyncio.CancelledError:
            if demo.journal.sent:
                _tell(demo.journal, demo.journal.failures, options)
            raise
    return _tell(demo.journal, problems, options)


class Demo:
    """The devices of a demonstration, and what they saw."""

    def __init__(self, stack: Stack, options: DemoOptions) -> None:
        self.journal = DemoLog()
        self._stack = stack
        self._options = options
        self._view = View(lambda: self.journal.summary())  # noqa: PLW0108 - another journal comes
        self._policy: Policy = policy_at(None)
        self._broker = Broker.from_url(stack.mqtt_url_for(CITY_DESK))
        self._story = Story(self._broker, stack.credentials.__getitem__, partial(_explain, stack))
        self._desks: dict[str, PoliceDesk] = {}
        self._witnesses: list[Participant] = []
        self._tasks: asyncio.TaskGroup

    async def run(self) -> list[str]:
        """Warm up, play, wait for the consequences, and return the missing ones."""
        await self._play(warming_up(self._options.seed))
        await self._settled(WARM_UP_TIMEOUT_S)
        self.journal = DemoLog()
        if not self._options.once:
            await self._tell_story()
        with self._view:
            await self._play((fixed if self._options.once else endless)(self._options.seed))
            return await self._settled(END_TIMEOUT_S)

    async def _tell_story(self) -> None:
        say("")
        say_wrapped("First one incident, step by step; then a lively city. Ctrl-C ends it.")
        try:
            await self._story.play(self._desks[ZONE])
        except (TimeoutError, MessageRejected, NotConfirmed) as failure:
            self.journal.failures.append(f"the story broke off: {failure!r}")
        say("")
        say_wrapped("Now the whole city: people walk about, report and help; three desks answer.")

    async def _play(self, scenes: Iterable[Scene]) -> None:
        for scene in scenes:
            await asyncio.sleep(scene.after_s)
            witness = self._witnesses[scene.witness % len(self._witnesses)]
            report = scene.report()
            self._view.reported(report, scene.place.name)
            name = f"{witness.user} reports {report.id}"
            self._tasks.create_task(self._send(witness, report, self.journal), name=name)

    async def _send(self, witness: Participant, report: Report, journal: DemoLog) -> None:
        category = self._policy.category(report.category)
        assert category is not None, "the scenes know the shipped policy"
        sent = journal.sent[report.id] = DemoReport(report, category.desk, time.time())
        try:
            sent.receipt = await witness.report(report)
            sent.receipt_at = time.time()
        except (MessageRejected, NotConfirmed) as failure:
            journal.failures.append(f"a report was not confirmed: {failure}")

    async def _settled(self, timeout_s: float) -> list[str]:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.journal.missing():  # noqa: ASYNC110 - many things at once
                    await asyncio.sleep(LOOK_S)
        return self.journal.missing()

    # Who is there

    @contextlib.asynccontextmanager
    async def populated(
        self, crowd: Sequence[str], witnesses: Sequence[str]
    ) -> AsyncIterator[None]:
        """Connect the desks, the city, the witnesses and the crowd."""
        pace = QUICK if self._options.once else LIVELY
        zones = [zone.id for zone in self._stack.zones if zone.kind is ZoneKind.POLICE]
        async with AsyncExitStack() as acquired, asyncio.TaskGroup() as self._tasks:
            for zone in (*zones, UNASSIGNED):
                self._desks[zone] = await acquired.enter_async_context(self._desk(zone))
            await acquired.enter_async_context(self._city())
            for user in witnesses:
                self._witnesses.append(await acquired.enter_async_context(self._witness(user)))
            await acquired.enter_async_context(self._crowd_of(crowd))
            say(f"{len(crowd)} people are out and about")
            answering = [
                self._tasks.create_task(self._answer(desk, pace), name="a desk answers")
                for desk in self._desks.values()
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
            listeners=DeskListeners(on_escalation=self._escalated, on_state=self._changed),
        )

    async def _answer(self, desk: PoliceDesk, pace: Pace) -> None:
        fail = self.journal.failures.append
        left = self._story.report.id
        await answer_escalations(desk, pace, self._options.seed, fail, leave=left)

    def _city(self) -> contextlib.AbstractAsyncContextManager[object]:
        login = Login(CITY_DESK, self._stack.credentials[CITY_DESK])
        return CaseWatch(login, self._broker, device="demo", on_case=self._cased)

    def _witness(self, user: str) -> Participant:
        witness = Participant(
            user,
            self._stack.credentials[user],
            self._broker,
            listeners=Listeners(
                on_group=self._grouped,
                on_question=lambda question, _: self._asked(witness, question),
            ),
        )
        return witness

    def _crowd_of(self, users: Sequence[str]) -> Crowd:
        return Crowd(
            self._broker,
            {user: self._stack.credentials[user] for user in users},
            crowd_tracks(len(users), self._options.seed),
            options=CrowdOptions(seed=self._options.seed, time_scale=TIME_SCALE),
            on_alert=self._alerted,
        )

    # What they hear

    def _escalated(self, escalation: Escalation, received_at: float) -> None:
        if escalation.report == self._story.report.id:
            self._story.escalations.put_nowait((escalation, received_at))
        self.journal.escalation(escalation, received_at)
        self._view.escalated(escalation)

    def _changed(self, state: IncidentState, _: float) -> None:
        self.journal.state(state)
        self._view.changed(state)

    def _cased(self, case: CaseSeen) -> None:
        self.journal.case(case)
        self._view.cased(case)

    def _alerted(self, _: str, alert: Alert, received_at: float) -> None:
        self.journal.alert(alert, received_at)

    def _grouped(self, event: GroupEvent, _: float) -> None:
        # Each witness of an incident gets the whole group's events; those of the warm-up are not
        # shown.
        if self.journal.group(event) and event.incident in self.journal.opened_at:
            self._view.grouped(event)

    def _asked(self, witness: Participant, question: Question) -> None:
        self._tasks.create_task(
            _answered(witness, question), name=f"{witness.user} answers {question.id}"
        )


async def _answered(witness: Participant, question: Question) -> None:
    # An incident may close before its reporter has typed the answer.
    with contextlib.suppress(MessageRejected, NotConfirmed):
        await witness.answer(question.id, "Ja, dat heb ik gezien. Ik blijf op afstand.")


def _explain(stack: Stack, incident: UUID) -> str:
    """Return the command that explains an incident while the demonstration runs."""
    return f"{program()} explain {short(incident)}{data_dir_option(stack.settings.data_dir)}"


def _tell(journal: DemoLog, problems: Sequence[str], options: DemoOptions) -> bool:
    summary = journal.summary()
    for problem in problems:
        say(f"failed: {problem}")
    if options.as_json:
        print_json({"ok": not problems, **summary, "problems": problems})
    else:
        for line in in_words(summary):
            say_wrapped(line)
    return not problems
