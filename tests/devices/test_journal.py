"""The journal alone: on disk before it returns, and damage that is never passed over."""

# ruff: noqa: ASYNC240 - nothing else runs in these tests' event loops

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from devices.journal import SEEN_LIFETIME_S, Journal, UnsentMessage
from devices.journal_file import JournalError
from schemas.ids import new_id
from schemas.messages import Subject

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def an_entry(payload: bytes = b"{}") -> UnsentMessage:
    return UnsentMessage(new_id(), Subject.REPORT, "nabij/v1/u/ann/up/report", payload, NOW)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ann.journal"


def run_python(source: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        **options,
    )


async def test_what_was_added_is_there_after_a_restart_in_its_order(path: Path) -> None:
    entries = [an_entry(bytes([number])) for number in range(5)]
    async with Journal(path) as journal:
        await asyncio.gather(*(journal.add(entry) for entry in entries))
        journal.remove(entries[1].id)
        journal.note_attempt(entries[2].id, 3, "No receipt.")
    async with Journal(path) as journal:
        kept = await journal.entries()
    assert [entry.id for entry in kept] == [entries[number].id for number in (0, 2, 3, 4)]
    assert (kept[1].attempts, kept[1].last_error) == (3, "No receipt.")
    assert kept[0] == entries[0]


async def test_what_came_is_remembered_for_eight_days(path: Path) -> None:
    alert, old, incident = new_id(), new_id(), new_id()
    async with Journal(path, clock=lambda: time.time() - SEEN_LIFETIME_S - 1) as journal:
        journal.note_seen(old)
    async with Journal(path) as journal:
        assert journal.seen == {}
        journal.note_seen(alert)
        journal.note_heard(incident, 7)
        journal.note_synced(NOW)
    async with Journal(path) as journal:
        assert list(journal.seen) == [alert.bytes]
        assert journal.heard == {incident: 7}
        assert journal.synced_at == NOW


async def test_what_came_too_long_ago_is_forgotten_at_a_sync(path: Path) -> None:
    now = time.time()
    async with Journal(path, clock=lambda: now) as journal:
        journal.note_seen(new_id())
        now += SEEN_LIFETIME_S + 1
        journal.note_seen(recent := new_id())
        journal.note_synced(NOW)
        assert list(journal.seen) == [recent.bytes]
    async with Journal(path, clock=lambda: now) as journal:
        assert list(journal.seen) == [recent.bytes]


async def test_what_add_returned_from_survives_kill_9_in_the_same_moment(path: Path) -> None:
    source = """
        import asyncio, os, signal, sys
        from datetime import UTC, datetime
        from devices.journal import UnsentMessage, Journal
        from schemas.ids import new_id
        from schemas.messages import Subject

        async def live():
            async with Journal(sys.argv[1]) as journal:
                for _ in range(20):
                    entry = UnsentMessage(new_id(), Subject.REPORT, "topic", b"{}", datetime.now(UTC))
                    await journal.add(entry)
                    print(entry.id, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(live())
    """
    killed = run_python(source, str(path))
    assert killed.returncode == -signal.SIGKILL
    async with Journal(path) as journal:
        assert [str(entry.id) for entry in await journal.entries()] == killed.stdout.split()


async def test_a_journal_that_was_cut_short_anywhere_is_refused(path: Path) -> None:
    async with Journal(path) as journal:
        for size in (*(400,) * 39, 9_000):  # the last on pages of its own
            await journal.add(an_entry(b"x" * size))
        whole = path.read_bytes()  # as kill -9 would leave it
    assert path.read_bytes() == whole
    for length in range(0, len(whole), 500):
        path.write_bytes(whole[:length])
        with pytest.raises(JournalError, match=r"ann\.journal .*(damaged|no journal).* move it"):
            async with Journal(path):
                pass
    path.write_bytes(whole)
    async with Journal(path) as journal:
        assert len(await journal.entries()) == 40


async def test_a_file_of_something_else_is_refused_and_left_alone(path: Path) -> None:
    for content in (b"", b"a diary", b"SQLite format 3\0" + bytes(4_000)):
        path.write_bytes(content)
        with pytest.raises(JournalError, match=r"ann\.journal is (no journal|damaged)"):
            async with Journal(path):
                pass
        assert path.read_bytes() == content


async def test_a_journal_of_a_newer_program_is_refused(path: Path) -> None:
    async with Journal(path):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(JournalError, match="version 2"):
        async with Journal(path):
            pass


async def test_a_journal_that_lost_its_file_but_not_its_rollback_is_refused(path: Path) -> None:
    path.with_name("ann.journal-journal").write_bytes(b"hot")
    with pytest.raises(JournalError, match="is gone"):
        async with Journal(path):
            pass


async def test_a_journal_in_use_is_refused_naming_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.journal_file._LOCK_TIMEOUT_S", 0.05)
    async with Journal(path):
        with pytest.raises(JournalError, match=r"ann\.journal is in use"):
            async with Journal(path):
                pass
        source = """
            import asyncio, sys
            from devices import journal, journal_file

            async def live():
                async with journal.Journal(sys.argv[1]):
                    pass

            journal_file._LOCK_TIMEOUT_S = 0.05
            asyncio.run(live())
        """
        other = run_python(source, str(path))
        assert "is in use by another process" in other.stderr


async def test_a_journal_belongs_to_one_user_for_good(path: Path) -> None:
    async with Journal(path) as journal:
        await journal.belong_to("ann")
    async with Journal(path) as journal:
        await journal.belong_to("ann")
        with pytest.raises(JournalError, match="the journal of ann, not of bob"):
            await journal.belong_to("bob")


async def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"nowhere/ann\.journal cannot be created"):
        async with Journal(tmp_path / "nowhere" / "ann.journal"):
            pass


async def test_a_journal_that_is_not_open_says_so(path: Path) -> None:
    with pytest.raises(JournalError, match="is not open"):
        await Journal(path).add(an_entry())


async def test_on_a_full_disk_nothing_is_promised_and_nothing_of_before_is_lost(path: Path) -> None:
    """A limit on the file's size stands for the disk: the kernel refuses to write beyond it."""
    source = """
        import asyncio, sys
        from datetime import UTC, datetime
        from devices.journal import UnsentMessage, Journal
        from devices.journal_file import JournalError
        from schemas.ids import new_id
        from schemas.messages import Subject

        async def live():
            async with Journal(sys.argv[1]) as journal:
                for _ in range(1_000):
                    payload = b"x" * 1_000
                    entry = UnsentMessage(new_id(), Subject.REPORT, "topic", payload, datetime.now(UTC))
                    try:
                        await journal.add(entry)
                    except JournalError as error:
                        print(error)
                        journal.remove(first)
                        return
                    print(entry.id)
                    first = entry.id

        asyncio.run(live())
    """

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    *promised, said = run_python(source, str(path), preexec_fn=limit).stdout.splitlines()
    assert "ann.journal cannot" in said
    assert "call 112" in said
    async with Journal(path) as journal:
        assert [str(entry.id) for entry in await journal.entries()] == promised[:-1]


async def test_two_hundred_journals_share_four_threads(tmp_path: Path) -> None:
    async with AsyncExitStack() as opened:
        journals = [
            await opened.enter_async_context(Journal(tmp_path / f"{number}.journal"))
            for number in range(200)
        ]
        await asyncio.gather(*(journal.add(an_entry()) for journal in journals for _ in range(3)))
        writers = [one for one in threading.enumerate() if one.name.startswith("journal")]
        assert len(writers) <= 4
        assert all([len(await journal.entries()) == 3 for journal in journals])


async def test_a_disk_that_hangs_does_not_hold_up_the_event_loop(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    commit = Journal._commit

    def hanging(self: Journal, batch: Any) -> None:
        goes_on.wait()
        commit(self, batch)

    monkeypatch.setattr(Journal, "_commit", hanging)
    async with Journal(path) as journal:
        adding = [asyncio.create_task(journal.add(an_entry())) for _ in range(3)]
        _, waiting = await asyncio.wait(adding, timeout=0.05)  # the loop lives, and nothing is done
        assert len(waiting) == 3
        goes_on.set()
        await asyncio.gather(*adding)
        assert len(await journal.entries()) == 3


def test_a_day_less_than_the_idempotency_is_what_a_journal_lives() -> None:
    from broker.store.receipt_records import RECEIPT_LIFETIME_S  # noqa: PLC0415 - only to compare
    from devices.delivery import LIFETIME  # noqa: PLC0415

    assert timedelta(days=1) + LIFETIME < timedelta(seconds=RECEIPT_LIFETIME_S)
