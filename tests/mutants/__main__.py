"""Would the fast tests notice? Changes the pure rooms in one small place at a time, and runs them.

    python -m tests.mutants --sample 10 --seed 1        # ten changes of each module
    python -m tests.mutants --only broker/core/grid.py --sample 0    # all of one module

The pure rooms are broker/core, schemas and what in broker/mqtt opens no connection; the fast tests
are those in tests/core, tests/schemas and tests/mqtt that start no server. A change that no test
notices is a survivor: add a test that has the right value, or, if it changes nothing that anybody
relies on, say why in tests/mutants/accepted.toml. Exits with 1 if a room is below its share.
"""

import argparse
import ast
import json
import random
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutants.mutations import Mutation, Shape, mutations_of
from tests.mutants.trial import Baseline, baseline_of, is_killed

ROOMS = {"broker/core": 95, "schemas": 95, "broker/mqtt": 90}  # per cent that must be killed
TESTS = ("tests/core", "tests/schemas", "tests/mqtt")
ACCEPTED = Path(__file__).with_name("accepted.toml")
# Who imports one of these speaks to the network, the clock or the log: the tests with servers cover
# it.
IMPURE = frozenset({"socket", "time", "structlog"})


@dataclass
class Module:
    """A module, its mutations and what became of them."""

    path: Path
    source: str
    mutations: list[Mutation]
    tried: int = 0
    survivors: list[dict[str, str]] = field(default_factory=list)
    accepted: int = 0

    @property
    def killed(self) -> int:
        return self.tried - len(self.survivors) - self.accepted


def main() -> int:
    """Run what the command line asks for."""
    options = _options()
    modules = list(_modules(options.only))
    accepted = tomllib.loads(ACCEPTED.read_text("utf-8"))
    began = time.monotonic()
    baseline = baseline_of([*ROOMS], TESTS)
    for module in modules:
        _try(module, baseline, options, accepted.get(str(module.path), {}))
        _progress(module)
    shares = {room: _share(modules, room) for room in ROOMS}
    if options.json:
        print(json.dumps(_report(modules, shares, options.seed), indent=2))
    else:
        _print(modules, shares, time.monotonic() - began)
    return int(any(share is not None and share < ROOMS[room] for room, share in shares.items()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.mutants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sample", type=int, default=10, help="mutants of each module; 0: all")
    parser.add_argument("--seed", type=int, default=1, help="another seed draws other mutants")
    parser.add_argument("--only", action="append", default=[], help="a file or room; repeatable")
    parser.add_argument("--json", action="store_true", help="print the result for machines")
    return parser.parse_args()


def _modules(only: list[str]) -> Iterator[Module]:
    shape, sources = Shape(), {}
    for room in ROOMS:
        for path in sorted(Path(room).rglob("*.py")):
            sources[path] = path.read_text("utf-8")
            shape.add(ast.parse(sources[path]))
    for path, source in sources.items():
        if only and not any(path.is_relative_to(one) for one in only):
            continue
        mutations = [] if _imports(source) & IMPURE else mutations_of(source, shape)
        if mutations:
            yield Module(path, source, mutations)


def _imports(source: str) -> set[str]:
    return {
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import)
        for alias in node.names
    }


def _try(
    module: Module, baseline: Baseline, options: argparse.Namespace, accepted: dict[str, str]
) -> None:
    drawn = module.mutations
    if 0 < options.sample < len(drawn):
        drawn = random.Random(f"{options.seed}|{module.path}").sample(drawn, options.sample)
    for mutation in drawn:
        before = module.source.encode()
        after = before[: mutation.start] + mutation.text.encode() + before[mutation.end :]
        wanted = baseline.tests_of.get(f"{module.path.absolute()}:{mutation.line}", [])
        module.tried += 1
        if is_killed(module.path.absolute(), after, baseline, tests=TESTS, wanted=wanted):
            continue
        was, line = _line(before, mutation), before[: mutation.start].count(b"\n") + 1
        now = _line(
            after, Mutation(mutation.start, mutation.start + len(mutation.text.encode()), "")
        )
        if f"{was} → {now}" in accepted:
            module.accepted += 1
        else:
            survivor = {"line": f"{module.path}:{line}", "was": was, "now": now}
            module.survivors.append(survivor)
            print(_told(survivor), file=sys.stderr, flush=True)  # a run may be interrupted


def _line(text: bytes, mutation: Mutation) -> str:
    """Return the lines of a mutation as one, without needless space."""
    begin = text.rfind(b"\n", 0, mutation.start) + 1
    end = text.find(b"\n", mutation.end)
    return " ".join(text[begin : end if end >= 0 else None].decode().split())


def _share(modules: list[Module], room: str) -> float | None:
    inside = [one for one in modules if one.path.is_relative_to(room)]
    counted = sum(one.tried - one.accepted for one in inside)
    return 100 * sum(one.killed for one in inside) / counted if counted else None


def _progress(module: Module) -> None:
    print(f"{module.path}: {module.killed}/{module.tried}", file=sys.stderr, flush=True)


def _told(survivor: dict[str, str]) -> str:
    return f"{survivor['line']}\n  - {survivor['was']}\n  + {survivor['now']}"


def _report(modules: list[Module], shares: dict[str, float | None], seed: int) -> dict[str, object]:
    return {
        "seed": seed,
        "shares": shares,
        "needed": ROOMS,
        "modules": [
            {
                "module": str(one.path),
                "mutants": len(one.mutations),
                "tried": one.tried,
                "killed": one.killed,
                "accepted": one.accepted,
                "survivors": one.survivors,
            }
            for one in modules
        ],
    }


def _print(modules: list[Module], shares: dict[str, float | None], seconds: float) -> None:
    print(f"\n{'module':<34} {'killed':>7} {'tried':>6} {'accepted':>9} {'of all':>7}")
    for one in modules:
        print(
            f"{one.path!s:<34} {one.killed:>7} {one.tried:>6} {one.accepted:>9} {len(one.mutations):>7}"
        )
    for one in modules:
        for each in one.survivors:
            print(f"\n{_told(each)}")
    print()
    for room, share in shares.items():
        if share is not None:
            verdict = "" if share >= ROOMS[room] else "  TOO FEW"
            print(f"{room:<12} {share:5.1f} % killed, {ROOMS[room]} % needed{verdict}")
    print(f"{sum(one.tried for one in modules)} mutants in {seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
