"""One run of the fast tests in a forked process, on the code as it is or with one module mutated.

Nothing is written to the work tree: a mutated module is compiled from its changed text when the
child imports it. What is not ours is imported before, once; so a mutant takes about a second.
"""

import ast
import contextlib
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

_OURS = ("schemas", "broker", "services", "devices", "verify", "nabij", "bench", "tests")
_READ = (*_OURS, "docs", "ops", "pyproject.toml")  # by the fast tests
_CACHE = Path(".pytest_cache/mutants")  # git ignores it, `make clean` removes it
_DATA_FIXTURES = frozenset({"shared_data", "data_dir"})
_MEMORY_BYTES = 6 << 30
_EXAMPLES = 20  # of each property
_FAST_S = 1.0  # of processor time; a test that needs more is not asked


@dataclass
class Baseline:
    """What the tests do on the code as it is: how long each takes, and which functions it calls."""

    seconds: dict[str, float] = field(default_factory=dict)
    tests_of: dict[str, list[str]] = field(default_factory=dict)  # "path:line": node ids
    imported: list[str] = field(default_factory=list)  # what is not ours


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module by its file, and gives it another text."""

    def __init__(self, path: Path, text: bytes) -> None:
        self._path = path
        self._text = text

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        del target
        if name.split(".", maxsplit=1)[0] not in _OURS:
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path)
        if found is None or found.origin != str(self._path):
            return None
        return importlib.util.spec_from_file_location(
            name,
            self._path,
            loader=self,
            submodule_search_locations=found.submodule_search_locations,
        )

    def get_code(self) -> CodeType:
        return compile(ast.parse(self._text), str(self._path), "exec")

    def exec_module(self, module: ModuleType) -> None:
        exec(self.get_code(), module.__dict__)


class Chosen:
    """A pytest plugin: only fast tests, and of these the ones that are wanted, shortest first."""

    def __init__(self, wanted: frozenset[str] | None, seconds: dict[str, float]) -> None:
        self._wanted = wanted
        self._seconds = seconds

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Examples are the same in each run, and a failure is not made smaller."""
        settings.register_profile(
            "mutants",
            settings.get_profile("nabij"),
            derandomize=True,
            database=None,
            phases=(Phase.explicit, Phase.generate),
            max_examples=_EXAMPLES,
            suppress_health_check=list(HealthCheck),
        )
        settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(filter(self._is_chosen, items), key=self._order)
        for item in items:
            _ask_for_few_examples(item)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """A test that waits for ever ends the run: SIGALRM kills, and so the mutant is noticed."""
        if self._seconds:
            signal.alarm(int(15 + 40 * self._seconds.get(item.nodeid, 0.0)))

    def _is_chosen(self, item: pytest.Item) -> bool:
        if item.nodeid in self._seconds:
            is_wanted = self._wanted is None or item.nodeid in self._wanted
            return is_wanted and self._seconds[item.nodeid] <= _FAST_S
        return not _needs_servers(item)

    def _order(self, item: pytest.Item) -> float:
        return self._seconds.get(item.nodeid, 0.0)


def _ask_for_few_examples(item: pytest.Item) -> None:
    """Bound the examples of a property that asks for hundreds, too: Hypothesis has no call for it."""
    function = getattr(item, "obj", None)
    asked = getattr(function, "_hypothesis_internal_use_settings", None)
    if asked is not None and asked.max_examples > _EXAMPLES:
        function._hypothesis_internal_use_settings = settings(asked, max_examples=_EXAMPLES)


def _needs_servers(item: pytest.Item) -> bool:
    """Whether a test asks for a fixture of a `conftest.py` that is no mere data."""
    fixtures = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009 - not in its type
    return any(
        each.baseid is not None
        and each.func.__module__.endswith("conftest")
        and name not in _DATA_FIXTURES
        for name, some in fixtures.items()
        for each in some
    )


class _Recorder:
    """A pytest plugin: records the time of each test, and the functions that it calls."""

    def __init__(self, rooms: Sequence[str]) -> None:
        self.baseline = Baseline()
        self._rooms = tuple(f"{Path.cwd() / room}/" for room in rooms)
        self._tests: dict[str, set[str]] = defaultdict(set)
        self._seen: set[CodeType] = set()
        self._test = ""

    def _called(self, frame: FrameType, event: str, argument: object) -> None:
        del argument
        if event != "call" or frame.f_code in self._seen:
            return
        self._seen.add(frame.f_code)
        code = frame.f_code
        if code.co_filename.startswith(self._rooms):
            self._tests[f"{code.co_filename}:{code.co_firstlineno}"].add(self._test)

    def start(self, test: str = "") -> None:
        self._test = test
        self._seen.clear()
        sys.settrace(self._called)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.start(item.nodeid)
        began = time.process_time()
        outcome = yield
        self.baseline.seconds[item.nodeid] = time.process_time() - began
        sys.settrace(None)
        return outcome  # type: ignore[return-value]

    def finish(self) -> Baseline:
        self.baseline.tests_of = {
            key: [] if "" in tests else sorted(tests)  # called by an import: any test may tell
            for key, tests in self._tests.items()
        }
        self.baseline.imported = [
            name for name in sys.modules if name.split(".")[0] not in (*_OURS, "__main__")
        ]
        return self.baseline


def baseline_of(rooms: Sequence[str], tests: Sequence[str]) -> Baseline:
    """Return what the tests do on the code as it is, recorded once for each state of the files."""
    known = _CACHE / f"{_fingerprint()}.json"
    if known.exists():
        text = known.read_text("utf-8")
    else:
        text = _record(rooms, tests)
        _CACHE.mkdir(parents=True, exist_ok=True)
        for outdated in _CACHE.iterdir():
            outdated.unlink()
        known.write_text(text, "utf-8")
    baseline = Baseline(**json.loads(text))
    for name in baseline.imported:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    return baseline


def _fingerprint() -> str:
    """A hash of all that the baseline depends on: our files, what is installed, and Python."""
    digest = hashlib.sha256(sys.version.encode())
    for one in sorted(f"{each.name} {each.version}" for each in distributions()):
        digest.update(one.encode())
    for name in _READ:
        top = Path(name)
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _record(rooms: Sequence[str], tests: Sequence[str]) -> str:
    """Run the fast tests, and return the baseline as JSON; ends the program if one fails."""
    read, write = os.pipe()

    def run() -> int:
        recorder = _Recorder(rooms)
        recorder.start()
        code = _pytest([*tests], Chosen(None, {}), recorder)
        sys.settrace(None)
        with os.fdopen(write, "w") as pipe:
            json.dump(vars(recorder.finish()), pipe)
        return code

    pid = _forked(run, within_s=600, quiet=False)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    if os.waitpid(pid, 0)[1]:
        raise SystemExit("the fast tests fail on the code as it is: see above")
    return text


def is_killed(
    path: Path, text: bytes, baseline: Baseline, *, tests: Sequence[str], wanted: Sequence[str]
) -> bool:
    """Whether a test notices that `path` has another text: fails, ends, or takes for ever.

    `wanted` are the node ids of the tests to run; if there are none, all fast ones in `tests`.
    """
    chosen = frozenset(wanted) if wanted else None
    files = sorted({each.partition("::")[0] for each in wanted}) if wanted else tests
    expected_s = sum(baseline.seconds[each] for each in wanted or baseline.seconds)
    limit_s = int(10 + 3 * expected_s)

    def run() -> int:
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        sys.meta_path.insert(0, _Mutated(path, text))
        return _pytest([*files, "-x"], Chosen(chosen, baseline.seconds))

    pid = _forked(run, within_s=60 + 10 * limit_s, quiet=True)
    return os.waitpid(pid, 0)[1] != 0


def _pytest(arguments: list[str], *plugins: object) -> int:
    return int(
        pytest.main([*arguments, "-p", "no:cacheprovider", "-W", "ignore"], plugins=[*plugins])
    )


def _forked(run: Callable[[], int], *, within_s: int, quiet: bool) -> int:
    """Return the id of a child that runs `run`, and ends by SIGALRM when it takes too long."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    signal.alarm(within_s)
    code = 70
    try:
        out = os.open(os.devnull, os.O_WRONLY) if quiet else 2
        os.dup2(out, 1)
        if quiet:
            os.dup2(out, 2)
        code = run()
    finally:
        os._exit(code)
