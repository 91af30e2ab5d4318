"""Where the suite's time goes: CPU and wall seconds by file, with `--times`.

CPU is that of the test and of the processes that it started and waited for; wall time depends on
what else the machine does, so a comparison goes by CPU. On several workers each report carries its
own figures to the one that prints.
"""

import resource
import time
from collections import defaultdict
from collections.abc import Generator

import pytest

FILES = 25
_NAME = "times"


class Times:
    """A plugin that measures each test, and prints the files that take the most."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        item.stash[_BEGAN] = (cpu_s(), time.monotonic())
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when == "teardown":
            began_cpu, began = item.stash[_BEGAN]
            report.user_properties.append((_NAME, [cpu_s() - began_cpu, time.monotonic() - began]))
        return report

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        files: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for report in terminalreporter.stats.get("", []):
            for name, (cpu, wall) in report.user_properties:
                if name == _NAME:
                    of_file = files[report.nodeid.partition("::")[0]]
                    of_file[0] += cpu
                    of_file[1] += wall
        totals = [sum(column) for column in zip(*files.values(), strict=True)] or [0.0, 0.0]
        terminalreporter.section("CPU and wall seconds")
        rows = sorted(files.items(), key=lambda row: -row[1][0])[:FILES]
        for name, (cpu, wall) in [("everything", totals), *rows]:
            terminalreporter.write_line(f"{cpu:8.1f} {wall:8.1f}  {name}")


_BEGAN = pytest.StashKey[tuple[float, float]]()


def cpu_s() -> float:
    """CPU time of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
