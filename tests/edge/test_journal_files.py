"""The journal's files: torn, damaged, in use, of another release, on a disk that is full."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.edge.journal import Journal, JournalError
from broker.edge.records import EndedRecord, encode_batch
from tests.edge.journal_wire import JournalWire
from tests.edge.wire import payloads

BATCHES = [encode_batch([EndedRecord(number)] * number) for number in (1, 2, 3)]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal with three batches."""
    journal = Journal(tmp_path)
    journal.open()
    assert list(journal.read()) == []
    journal.rewrite()
    for batch in BATCHES:
        journal.write(batch)
    journal.rewritten()
    yield journal
    journal.close()


def numbers(directory: Path) -> list[int]:
    """Which batches are read."""
    return sorted({int(record.number) for record in Journal(directory).read()})  # type: ignore[union-attr]


def file_of(directory: Path) -> Path:
    (file,) = directory.glob("journal-*")
    return file


@pytest.mark.usefixtures("journal")
def test_a_file_that_is_torn_at_any_byte_has_the_batches_before(tmp_path: Path) -> None:
    file = file_of(tmp_path)
    data = file.read_bytes()
    ends = [data.index(batch) + len(batch) for batch in BATCHES]
    for size in range(len(data) + 1):
        file.write_bytes(data[:size])
        whole = [number for number, end in enumerate(ends, 1) if end <= size]
        assert numbers(tmp_path) == whole, size


@pytest.mark.usefixtures("journal")
def test_damage_is_an_error_that_says_where_but_in_the_last_batch_it_is_a_torn_end(
    tmp_path: Path,
) -> None:
    file = file_of(tmp_path)
    data = file.read_bytes()
    last = data.index(BATCHES[1]) + len(BATCHES[1])
    for place in range(len(data)):
        file.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        if place >= last:
            assert numbers(tmp_path) == [1, 2]
            continue
        with pytest.raises(JournalError) as error:
            numbers(tmp_path)
        assert str(file) in str(error.value), place
        assert place < 16 or "from a backup" in str(error.value)


@pytest.mark.usefixtures("journal")
def test_what_a_power_cut_left_after_the_last_batch_is_cut_off(tmp_path: Path) -> None:
    file = file_of(tmp_path)
    data = file.read_bytes()
    start, end = data.index(BATCHES[0]) - 8, data.index(BATCHES[0]) + len(BATCHES[0])
    faked = b"\0" * 30 + b"whatever" + data[start:end]  # a client can fake a frame but for its mark
    for rest in (b"\0" * 5000, b"\xff" * 100, faked):
        file.write_bytes(data + rest)
        assert numbers(tmp_path) == [1, 2, 3]


def test_a_journal_of_another_release_is_not_touched(journal: Journal, tmp_path: Path) -> None:
    journal.close()
    file = file_of(tmp_path)
    later = file.read_bytes().replace(b"nabij journal 1\n", b"nabij journal 2\n")
    file.write_bytes(later)
    with pytest.raises(JournalError, match="of this release"):
        JournalWire(tmp_path)
    assert file.read_bytes() == later


def test_a_directory_serves_one_process_at_a_time(journal: Journal, tmp_path: Path) -> None:
    other = Journal(tmp_path)
    with pytest.raises(JournalError, match="another process uses this journal"):
        other.open()
    journal.close()
    other.open()
    other.close()


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "journal"
    wire = JournalWire(directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {one.stat().st_mode & 0o777 for one in directory.iterdir()} == {0o600}
    wire.kept.close()


def test_a_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="file/journal: Not a directory"):
        Journal(tmp_path / "file" / "journal").open()


def test_what_a_killed_rewrite_leaves_is_read_and_then_goes(tmp_path: Path) -> None:
    wire = JournalWire(tmp_path, min_bytes=1)
    bob = wire.client("bob", session_expiry_interval=600)
    bob.subscribe("a")
    bob.break_off()
    ann = wire.client("ann")
    for number in range(20):
        ann.publish("a", bytes([number]), qos=1, packet_id=number + 1)
        if len(wire.files) == 2 and number > 5:
            break
    assert len(wire.files) == 2
    (tmp_path / "journal-99999990").touch()
    wire.kill()
    assert len(wire.files) == 1
    back = wire.client("bob", session_expiry_interval=600)
    assert payloads(back.messages()) == [bytes([one]) for one in range(number + 1)]
    wire.kept.close()


def test_on_a_full_disk_nothing_more_is_promised_and_nothing_is_lost(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, room = os.write, [10]

    def on_full_disk(file: int, data: memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= (written := write(file, data[: room[0]]))
        return written

    monkeypatch.setattr("broker.edge.journal.os.write", on_full_disk)
    with pytest.raises(JournalError, match="No space left on device"):
        journal.write(BATCHES[0])
    room[0] = 1000
    with pytest.raises(JournalError):
        journal.write(BATCHES[0])  # it would follow half a frame
    assert numbers(tmp_path) == [1, 2, 3]


def test_a_batch_of_64_mib_is_one_frame(journal: Journal, tmp_path: Path) -> None:
    batch = encode_batch([EndedRecord("x" * (64 << 20))])
    journal.write(batch)
    *_, last = Journal(tmp_path).read()
    assert isinstance(last, EndedRecord)
    assert len(str(last.number)) == 64 << 20
    assert journal.is_large
