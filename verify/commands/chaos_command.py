"""`nabij chaos`: kills things at random, and judges whether anything was lost."""

import time
from dataclasses import dataclass
from pathlib import Path

import typer

from nabij.local.embedded import MqttEngine
from nabij.output import Progress, print_json

RATE = 60.0  # reports per second, unless a duration is given
KILLS_A_ROUND = 10  # of changes of the hosts, with --scale
BESIDE_S, LOAD_SHARE = 20.0, 0.4  # start and settling take so long, and load at least that share


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosOptions:
    """What `nabij chaos` was asked for."""

    reports: int
    kills: int
    seed: int
    duration_s: float | None = None
    engine: MqttEngine = MqttEngine.AUTO
    partitions: int = 1
    scale: bool = False
    as_json: bool = False


# long: as many parameters as the command has options
def chaos(
    *,
    reports: int,
    kills: int,
    seed: int,
    duration: float | None,
    engine: str,
    partitions: int,
    scale: bool,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Run as the command line says, print, and exit."""
    from broker.runtime import config, log  # noqa: PLC0415 - `nabij --help` must not wait for all of this
    from nabij.event_loop import Interrupted, ending_cleanly, run_until_signal  # noqa: PLC0415
    from nabij.local.data_directory import temporary_unless  # noqa: PLC0415
    from verify.chaos.report import print_report  # noqa: PLC0415

    log.set_up("error", "auto")
    try:
        chosen = MqttEngine(engine)
    except ValueError:
        raise typer.BadParameter(f"one of {', '.join(MqttEngine)}", param_hint="--engine") from None
    if chosen is MqttEngine.AUTO:
        chosen = MqttEngine(config.load().mqtt)
    options = ChaosOptions(
        reports=reports,
        kills=kills,
        seed=seed,
        duration_s=duration,
        engine=chosen,
        partitions=partitions,
        scale=scale,
        as_json=as_json,
    )
    if data_dir is not None and (data_dir / "logs").exists():
        raise typer.BadParameter(
            f"{data_dir} holds an earlier run; choose another directory", param_hint="--data-dir"
        )
    with ending_cleanly(), temporary_unless(data_dir) as directory:
        try:
            result = run_until_signal(run_chaos(directory, options))
        except Interrupted:
            raise typer.Exit(1) from None
    if as_json:
        print_json(result)
    else:
        print_report(result)
    raise typer.Exit(0 if result["passed"] else 1)


async def run_chaos(directory: Path, options: ChaosOptions) -> dict[str, object]:
    """Run once in `directory` and return what `--json` prints."""
    from verify.chaos.chaos_run import Run  # noqa: PLC0415
    from verify.chaos.chaos_world import ChaosWorld, Scale  # noqa: PLC0415
    from verify.chaos.plan import rescales_of, strikes_of  # noqa: PLC0415
    from verify.chaos.report import as_json  # noqa: PLC0415

    began = time.time()
    scale = Scale(
        reports=options.reports,
        lasts_s=_load_s(options),
        seed=options.seed,
        engine=options.engine,
        partitions=options.partitions,
        hosts=("a", "b") if options.scale else ("1",),
    )
    rounds = max(1, options.kills // KILLS_A_ROUND) if options.scale else 0
    rescales = rescales_of(rounds, options.seed)
    strikes = strikes_of(options.kills, options.seed)
    with Progress("reports receipted") as progress:
        async with ChaosWorld(directory, scale) as world:
            outcome = await Run(world, strikes, progress.at, rescales).run()
            engine = world.mqtt.description
    return as_json(outcome, seed=options.seed, engine=engine, began=began)


def _load_s(options: ChaosOptions) -> float:
    """Return how long the reports take: chaos is no load test, and what is overloaded hides."""
    if options.duration_s is None:
        return options.reports / RATE
    return max(options.duration_s - BESIDE_S, options.duration_s * LOAD_SHARE)
