"""Runs random sequences at our MQTT broker and at a Mosquitto of its own, and says what differed.

python -m tests.edge.differential_run --sequences 5000
"""

import argparse
import tempfile
import time
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from nabij.local.embedded import find_program
from nabij.local.managed_process import free_port
from tests.edge.differences import Comparison
from tests.edge.differential import Differential, clean_up
from tests.edge.shared_differential import SharedDifferential
from tests.mqtt.brokers import BrokerProcess

KINDS = (Differential, SharedDifferential)
_RIGHTS = """
topic readwrite #
topic readwrite $own/#
topic readwrite $unknown/#
user ann
topic readwrite #
topic read $SYS/#
user bob
topic readwrite b/#
"""
_BATCH = 100
_CONFIG = Path(__file__).parents[2] / "mosquitto.conf"
_OURS = {"listener", "allow_anonymous", "password_file", "acl_file", "autosave_interval"}


def start_mosquitto(directory: Path) -> BrokerProcess | None:
    """Start one with the product's configuration, but for rights and disk; None: none is installed."""
    binary = find_program("mosquitto")
    if binary is None:
        return None
    port = free_port()
    lines = [
        line
        for line in _CONFIG.read_text(encoding="utf-8").splitlines()
        if line.split(" ")[0] not in _OURS and not line.startswith("persistence")
    ]
    acl = directory / "acl"
    acl.write_text(_RIGHTS, encoding="utf-8")
    lines += [
        f"listener {port} 127.0.0.1",
        "allow_anonymous true",
        f"acl_file {acl}",
        "user root",
        "allow_duplicate_messages true",  # differences.toml, one-copy
    ]
    config = directory / "mosquitto.conf"
    config.write_text("\n".join([*lines, ""]), encoding="utf-8")
    process = BrokerProcess([binary, "-c", str(config)], port)
    process.start()
    return process


def run(
    kind: type[Differential],
    port: int,
    *,
    sequences: int,
    steps: int = 30,
    seed: int | None = None,
    phases: tuple[Phase, ...] = (Phase.generate,),
) -> Comparison:
    """Run so many sequences against the Mosquitto on this port; the same ones without a seed."""
    kind.port, kind.comparison = port, Comparison()
    how = settings(
        max_examples=sequences,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=seed is None,
        suppress_health_check=list(HealthCheck),
        phases=phases,
    )
    machine = kind if seed is None else hypothesis.seed(seed)(kind)
    try:
        run_state_machine_as_test(machine, settings=how)
    finally:
        clean_up(port)
    return kind.comparison


def main() -> None:
    """Run both kinds of sequences, in batches with a seed each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=1000, help="of each kind (default: 1000)")
    parser.add_argument("--steps", type=int, default=40, help="in one, at most (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="of the first batch (default: 0)")
    parser.add_argument("--shrink", action="store_true", help="make what fails shorter: minutes")
    options = parser.parse_args()
    phases = (Phase.generate, Phase.shrink) if options.shrink else (Phase.generate,)
    with tempfile.TemporaryDirectory() as directory:
        mosquitto = start_mosquitto(Path(directory))
        if mosquitto is None:
            parser.error("no mosquitto on the PATH")
        try:
            for number in range(-(-options.sequences // _BATCH)):
                for kind in KINDS:
                    seed, port, began_at = options.seed + number, mosquitto.port, time.monotonic()
                    comparison = run(
                        kind, port, sequences=_BATCH, steps=options.steps, seed=seed, phases=phases
                    )
                    print(  # noqa: T201 - a command
                        f"{kind.__name__}, seed {seed}: {comparison.sequences} sequences,"
                        f" {comparison.steps} steps, {time.monotonic() - began_at:.0f} s;"
                        f" met: {dict(comparison.used)}",
                        flush=True,
                    )
        finally:
            mosquitto.kill()


if __name__ == "__main__":
    main()
