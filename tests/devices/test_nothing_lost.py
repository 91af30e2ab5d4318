"""Devices with journals on the real services, while the processes around them are killed."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import pytest

from devices.device_connection import Broker
from devices.device_inbox import Listeners
from devices.journal import Journal
from devices.participant import MessageRejected, NotConfirmed, Participant
from nabij.local.managed_process import free_port
from schemas.ids import new_id
from schemas.messages import Outcome, Position, Receipt, Report
from tests.devices.options import words_of

KORENMARKT = Position(lat=51.0543, lon=3.7217)
DEVICE = """
    import asyncio, sys
    from datetime import UTC, datetime, timedelta
    from uuid import UUID
    from devices.participant import Broker, DeviceOptions, Journal, Listeners, Participant
    from schemas.messages import Position, Report

    def say(*words):
        print(*words, flush=True)

    async def live(path, port, *reports):
        async with Journal(path) as journal, Participant(
            "ann", "secret-of-ann", Broker("127.0.0.1", int(port)), journal=journal,
            options=DeviceOptions(connect_timeout_s=0.1, session_expiry_s=0),
            listeners=Listeners(
                on_journaled=lambda entry: say("journaled", entry.id),
                on_receipt=lambda receipt, _: say(receipt.outcome, receipt.id),
            ),
        ) as ann:
            say("ready")
            for report in reports:
                place = Position(lat=51.0543, lon=3.7217)
                asyncio.create_task(ann.report(Report(
                    id=UUID(report), category="fight", location=place, seen_at=datetime.now(UTC),
                )))
            await asyncio.Event().wait()

    asyncio.run(live(*sys.argv[1:]))
"""


def fight() -> Report:
    return Report(id=new_id(), category="fight", location=KORENMARKT, seen_at=datetime.now(UTC))


class Device:
    """A device as a process of its own, to be killed."""

    def __init__(self, path: Path, port: int, *reports: Any) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                textwrap.dedent(DEVICE),
                str(path),
                str(port),
                *map(str, reports),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.kill()
        assert self._process.stdout
        self._process.stdout.close()
        await asyncio.to_thread(self._process.wait)

    async def says(self, *words: object) -> None:
        """Wait until the device has said this."""
        assert self._process.stdout
        wanted = " ".join(map(str, words))
        async with asyncio.timeout(15):
            while (line := await asyncio.to_thread(self._process.stdout.readline)) != f"{wanted}\n":
                assert line, f"the device ended and never said {wanted}"

    async def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        assert await asyncio.to_thread(self._process.wait) == -signal.SIGKILL


def participant(broker: Broker, journal: Journal, **options: Any) -> Participant:
    options = {"session_expiry_s": 60, **options}
    return Participant(
        "ann", "secret-of-ann", broker, journal=journal, **words_of(Listeners, options)
    )


async def emptied(journal: Journal) -> None:
    async with asyncio.timeout(15):
        while await journal.entries():  # noqa: ASYNC110 - there is no event to wait on
            await asyncio.sleep(0.02)


async def test_a_device_killed_between_journal_and_publish_delivers_after_its_restart_once(
    stack: Any, tmp_path: Path
) -> None:
    path, report = tmp_path / "ann.journal", new_id()
    async with Device(path, free_port(), report) as device:  # nobody is there to publish to
        await device.says("journaled", report)
        await device.kill()
    assert await stack.reports() == []
    async with Device(path, stack.mqtt.port) as device:
        await device.says("accepted", report)
    assert await stack.reports() == [report]


async def test_a_device_killed_at_any_moment_delivers_each_report_once(
    stack: Any, tmp_path: Path
) -> None:
    """Killed ever later: before, during and after publish, commit, receipt and deletion."""
    path, reports = tmp_path / "ann.journal", [new_id() for _ in range(6)]
    for number, report in enumerate(reports):
        async with Device(path, stack.mqtt.port, report) as device:
            await device.says("journaled", report)
            await asyncio.sleep(number * 0.001)  # the moment is what is tried here
            await device.kill()
    async with Journal(path) as journal, participant(stack.broker, journal):
        await emptied(journal)
    assert sorted(await stack.reports()) == sorted(reports)


async def test_an_mqtt_broker_killed_in_the_middle_of_a_hundred_reports_costs_none(
    stack: Any, tmp_path: Path
) -> None:
    reports = [fight() for _ in range(100)]
    half = asyncio.Semaphore(0)
    receipts: dict[object, Receipt] = {}

    async def send(ann: Participant, report: Report) -> None:
        receipts[report.id] = await ann.report(report)
        half.release()

    async with (
        Journal(tmp_path / "ann.journal") as journal,
        participant(stack.broker, journal, receipt_timeout_s=30.0) as ann,
        asyncio.TaskGroup() as group,
    ):
        for report in reports:
            group.create_task(send(ann, report))
        for _ in range(20):
            await half.acquire()
        assert len(receipts) < 100
        await stack.mqtt.kill()
        await stack.mqtt.restart()
    assert {receipt.outcome for receipt in receipts.values()} == {Outcome.ACCEPTED}
    assert set(receipts) == {report.id for report in reports}
    assert len({receipt.sequence for receipt in receipts.values()}) == 100
    assert Counter(await stack.reports()) == Counter(report.id for report in reports)


async def test_while_redis_is_down_there_is_no_receipt_and_afterwards_there_is(
    stack: Any, tmp_path: Path
) -> None:
    late: asyncio.Queue[Receipt] = asyncio.Queue()
    unconfirmed: list[object] = []
    report = fight()
    async with (
        Journal(tmp_path / "ann.journal") as journal,
        participant(
            stack.broker,
            journal,
            receipt_timeout_s=1.0,
            on_receipt=lambda receipt, _: late.put_nowait(receipt),
            on_unconfirmed=lambda entry: unconfirmed.append(entry.id),
        ) as ann,
    ):
        await stack.redis.kill()
        with pytest.raises(NotConfirmed, match="Call 112"):
            await ann.report(report)
        assert [entry.id for entry in await journal.entries()] == [report.id]
        assert late.empty()
        await stack.redis.restart()
        async with asyncio.timeout(20):
            receipt = await late.get()
        assert (receipt.id, receipt.outcome) == (report.id, Outcome.ACCEPTED)
        assert await journal.entries() == []
    assert unconfirmed == [report.id]
    assert await stack.reports() == [report.id]


async def test_a_report_older_than_seven_days_is_expired(stack: Any, tmp_path: Path) -> None:
    week_ms = 7 * 86_400_000
    old, young = (
        Report(
            id=UUID(int=new_id().int - ((week_ms + shift_ms) << 80)),
            category="fight",
            location=KORENMARKT,
            seen_at=datetime.now(UTC),
        )
        for shift_ms in (60_000, -60_000)
    )
    async with (
        Journal(tmp_path / "ann.journal") as journal,
        participant(stack.broker, journal) as ann,
    ):
        with pytest.raises(MessageRejected, match=r"expired at \$\.id: ") as caught:
            await ann.report(old)
        assert caught.value.receipt.id == old.id
        assert (await ann.report(young)).outcome is Outcome.ACCEPTED
        assert await journal.entries() == []
    assert await stack.reports() == [young.id]


async def test_a_repeat_gets_its_receipt_though_its_time_is_too_old_by_now(
    stack: Any, tmp_path: Path
) -> None:
    too_old_at = datetime.now(UTC) + timedelta(seconds=1)
    report = Report(
        id=new_id(), category="fight", location=KORENMARKT, seen_at=too_old_at - timedelta(days=7)
    )
    async with (
        Journal(tmp_path / "ann.journal") as journal,
        participant(stack.broker, journal) as ann,
    ):
        first = await ann.report(report)
        await asyncio.sleep((too_old_at - datetime.now(UTC)).total_seconds() + 0.1)
        assert await ann.report(report) == first
