"""The instruments of the benchmarks: what they measure is there, and a report loads nothing."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import mqtt5
import pytest

from bench.bench_world import Way, beside, world
from bench.fanout import floor_of, packets_to, volley_at
from bench.html import page
from bench.receivers import ArrivalCounts, CountQuestion, Recipient
from bench.results import BenchResult, Histogram, Plot, Ratio, Row


def test_a_ratio_is_the_median_of_those_of_its_rounds() -> None:
    assert Ratio.of([2.0, 30.0, 3.0], [1.0, 10.0, 2.0]) == (2.0, 1.5, 3.0)
    assert str(Ratio.of([1.0], [3.0])) == "0.33 (0.33 to 0.33)"


def test_a_histogram_tells_milliseconds_to_three_digits() -> None:
    histogram = Histogram(number / 1_000 for number in range(1, 1_001))

    assert histogram.ms(50) == pytest.approx(500, rel=0.002)
    assert histogram.ms(99) == pytest.approx(990, rel=0.002)
    assert histogram.curve()[-1] == (100, pytest.approx(1_000, rel=0.002))


def test_the_report_loads_nothing_and_says_everything() -> None:
    curves = {"ours": [(1.0, 2.0), (10.0, 200.0)], "a <floor>": [(1.0, 1.0), (10.0, 90.0)]}
    result = BenchResult(
        "latency",
        {},
        [Row("p50", "2 ms", "1 ms", "2.00", "≤ 1.6")],
        [Plot("Latency", "percentile", "ms", curves)],
    )

    html = page([result], {"machine": "2 <cores>"})

    assert "2 &lt;cores&gt;" in html
    assert "a &lt;floor&gt;" in html
    assert "≤ 1.6" in html
    assert "<svg" in html
    assert not re.search(r"\bsrc=|@import|url\(|href=[\"']?(?!#)", html)


@pytest.mark.parametrize("size", [1, 3, 64, 10_000])
async def test_a_recipient_takes_up_packets_however_they_are_cut(size: int) -> None:
    users = [f"r-{number}" for number in range(40)]
    data = packets_to(users, "0" * 36) + packets_to(users[:2], "1" * 36)
    written: list[bytes] = []

    class Transport(asyncio.Transport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            written.append(bytes(data))

    tally = ArrivalCounts()
    recipient = Recipient("mqtt://ann:secret@localhost:1", "nabij/v1/u/{user}/down/alert", tally)
    recipient.connection_made(Transport())
    written.clear()
    for first in range(0, len(data), size):
        recipient.data_received(data[first : first + size])

    groups = (await tally.answer(_nothing_more())).groups
    assert {key: group.count for key, group in groups.items()} == {"0" * 36: 40, "1" * 36: 2}
    acknowledged = list(_packet_ids(b"".join(written)))
    assert acknowledged == [*range(1, 41), 1, 2]


def _nothing_more() -> CountQuestion:
    return CountQuestion(0, 0.0)


def _packet_ids(data: bytes) -> Iterator[int]:
    while data:
        packet, length = mqtt5.read(data)
        assert isinstance(packet, mqtt5.PubAckPacket)
        yield packet.packet_id
        data = data[length:]


async def test_reports_floors_and_a_program_aside_are_measured_on_a_running_system(
    program: Callable[..., str],
) -> None:
    program("mosquitto")  # on the machine's own servers, as `nabij bench` runs
    async with world([5, 3]) as here, beside(here, "bench.peers.with_aiomqtt"):
        await here.open_aside()

        sent = await here.send(4, 50.0, 5)
        aside = await here.send(2, 50.0, 3, by=Way.RELAY)
        volley = await volley_at(here.stack.mqtt_url)
        floor = await floor_of(volley, here.recipients[3], here.groups[3].users)

        assert all(one.alerts == 5 for one in sent)
        assert all(one.due < one.receipt and one.due < one.police for one in sent)
        assert all(one.due < one.first <= one.last for one in sent)
        assert all(one.due < one.police for one in aside)
        assert 0 < floor < 20


def test_the_command_says_what_there_is_to_measure() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nabij.cli", "bench", "latencies"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 2
    assert "latency" in done.stderr
    assert "peers" in done.stderr
