"""The commands, their options and exit codes: 0 done, 1 failed, 2 wrong usage or settings."""

# ruff: noqa: PLC0415 - each command imports its own: `nabij --help` must not wait for all of them

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from nabij import completion
from nabij.bench_app import bench
from nabij.dead_letters_app import dead_letters_app
from nabij.options import DataDir, Json, Workers, settings_of
from nabij.zones_app import zones_app
from verify.commands.replay_app import replay

app = typer.Typer(
    help="Nabij: a real-time alert broker for community safety.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None if os.environ.get("NO_COLOR") else "rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
policy_app = typer.Typer(help="What can be reported, and how it is handled.", no_args_is_help=True)
app.add_typer(zones_app, name="zones")
app.add_typer(policy_app, name="policy")
app.add_typer(dead_letters_app, name="dead-letters")


# long: the options with their help; the work is in nabij/up.py
@app.command()
def up(
    *,
    service: Annotated[
        list[str] | None,
        typer.Option(
            help="Run only this service; may be repeated.",
            metavar="NAME",
            autocompletion=completion.services,
        ),
    ] = None,
    workers: Workers = None,
    within: Annotated[
        float,
        typer.Option(
            min=1.0, help="Seconds to wait until every service is ready; then exit with 1."
        ),
    ] = 30.0,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Run the broker's services until Ctrl-C, SIGTERM or the end of the terminal.

    Without NABIJ_MQTT_URL and NABIJ_REDIS_URL it starts its own servers, and prints accounts
    to try them with. `nabij doctor` lists all settings.

    nabij up --workers alerting=2

    nabij up --service intake --service police
    """
    from nabij.event_loop import Interrupted, run_until_signal
    from nabij.up import announcer, workers_of
    from nabij.up import up as run_up

    announce, tell = announcer()
    try:
        counts = workers_of(service or [], workers or [])
        settings = settings_of(data_dir)
        run_until_signal(
            run_up(settings, counts, within_s=within, as_json=as_json, announce=announce)
        )
    except Interrupted:
        announce("drained")
    except Exception as error:  # noqa: BLE001 - told in the log, where that is JSON
        raise typer.Exit(_status_of(error, tell)) from None


@app.command()
def demo(
    *,
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="Play a fixed scenario and end; exit with 1 if anything is missing."
        ),
    ] = False,
    as_json: Json = False,
    seed: Annotated[int, typer.Option(help="Seed of the simulated crowd.")] = 1,
    participants: Annotated[
        int, typer.Option(min=30, max=5_000, help="How many people are out and about.")
    ] = 200,
    workers: Workers = None,
    data_dir: DataDir = None,
) -> None:
    """Tell one incident step by step, then show a city: people report and help, the police answer.

    It runs on servers of its own, and ends at Ctrl-C with a summary.

    nabij demo

    nabij demo --once --json | jq .police_p50_ms
    """
    from nabij.demo.demo import DemoOptions, run_demo
    from nabij.event_loop import Interrupted, ending_cleanly, run_until_signal
    from nabij.local.data_directory import temporary_unless
    from nabij.up import workers_of

    options = DemoOptions(once, seed, participants, as_json)
    counts = workers_of([], workers or [])
    with ending_cleanly(), temporary_unless(data_dir) as directory:
        settings = settings_of(directory, quiet=True)
        try:
            ok = run_until_signal(run_demo(settings, counts, options))
        except Interrupted:
            raise typer.Exit(1 if once else 0) from None
    raise typer.Exit(0 if ok else 1)


app.command()(replay)


@app.command()
def tail(
    *,
    topic_filter: Annotated[
        str, typer.Argument(metavar="FILTER", autocompletion=completion.topic_filters)
    ] = "nabij/v1/#",
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Print the messages on the MQTT broker, decoded, until Ctrl-C.

    FILTER is an MQTT topic filter. All topics of Nabij begin with nabij/v1/, which may be left out.
    The probe that each worker sends itself each second is printed only if FILTER names it
    (ops/probe/#).

    nabij tail 'police/gent/#'

    nabij tail 'nabij/v1/ops/#' --json
    """
    from nabij.event_loop import Interrupted, run_until_signal
    from nabij.tail import tail as run_tail

    settings = settings_of(data_dir)
    try:
        run_until_signal(run_tail(settings, topic_filter, as_json=as_json))
    except Interrupted:
        raise typer.Exit(0) from None


@app.command()
def doctor(
    *,
    user: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="USER",
            help="A participant to try the MQTT broker as; NABIJ_DEVICE_PASSWORD holds its password.",
        ),
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Report what is installed, reachable and misconfigured; exit with 1 if something is broken.

    The MQTT broker is tried out: as the services, as a stranger, and as a participant.

    nabij doctor

    NABIJ_DEVICE_PASSWORD=… nabij doctor --as ann

    NABIJ_REDIS_URL=redis://db:6379 nabij doctor --json
    """
    from nabij.doctor import doctor as run_doctor
    from nabij.event_loop import run

    if not run(run_doctor(data_dir, user, as_json=as_json)):
        raise typer.Exit(1)


@app.command()
def explain(
    *,
    incident: Annotated[str, typer.Argument(metavar="INCIDENT")],
    user: Annotated[str | None, typer.Argument(metavar="USER")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Explain what happened to an incident and why, or why USER was or was not alerted to it.

    INCIDENT is its id, or the first six or more digits of it.

    nabij explain 0d3ad8

    nabij explain 0d3ad8f4-41a8-5c35-9a52-0f5a2f0e3f6c

    nabij explain 0d3ad8f4-41a8-5c35-9a52-0f5a2f0e3f6c bob --json
    """
    from nabij.explain_command import run_explain

    if not run_explain(settings_of(data_dir, quiet=True), incident, user, as_json=as_json):
        raise typer.Exit(1)


# long: the options with their help; the work is in verify/commands
@app.command()
def chaos(
    *,
    reports: Annotated[int, typer.Option(min=1)] = 2_000,
    kills: Annotated[
        int, typer.Option(min=0, help="How many processes to kill; a quarter as many are paused.")
    ] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the choice of victims and moments.")] = 1,
    duration: Annotated[
        float | None,
        typer.Option(
            min=5.0, help="About how long it takes, in seconds; default: 60 reports a second."
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="edge, mosquitto, or auto: what NABIJ_MQTT says.",
            autocompletion=completion.engines,
        ),
    ] = "auto",
    partitions: Annotated[
        int,
        typer.Option(min=1, help="How many partitions; with several, a border runs through Ghent."),
    ] = 1,
    scale: Annotated[
        bool,
        typer.Option(
            "--scale",
            help="Also kill, swap, scale and restart whole hosts in turn.",
        ),
    ] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Kill brokers, services and devices at random; exit with 1 if anything was lost or done twice.

    nabij chaos --reports 2000 --kills 10 --duration 40 --json

    nabij chaos --reports 2000 --kills 5 --scale
    """
    from verify.commands import chaos_command

    chaos_command.chaos(
        reports=reports,
        kills=kills,
        seed=seed,
        duration=duration,
        engine=engine,
        partitions=partitions,
        scale=scale,
        as_json=as_json,
        data_dir=data_dir,
    )


app.command()(bench)


@app.command()
def simulate(
    *,
    seeds: Annotated[int, typer.Option(min=1, help="How many worlds to simulate.")] = 500,
    first: Annotated[int, typer.Option("--first", "--seed", min=0, help="The first seed.")] = 0,
    trace: Annotated[bool, typer.Option("--trace", help="Print every event.")] = False,
    broken: Annotated[
        str | None,
        typer.Option(
            help="Break one promise on purpose, to check that it is noticed, such as "
            "acknowledge-first or lost-alert; a wrong name lists them all.",
            autocompletion=completion.broken_promises,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Simulate small worlds in virtual time in which everything fails, and check every promise.

    The code is that of the services. I6 and I9 need real processes: `nabij chaos` judges those.

    nabij simulate --seeds 1 --first 5394 --trace
    """
    from verify.commands.simulate_command import run_simulation

    if not run_simulation(range(first, first + seeds), broken, trace=trace, as_json=as_json):
        raise typer.Exit(1)


@policy_app.command("check")
def check_policy(
    *,
    file: Annotated[Path | None, typer.Argument(metavar="FILE")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Check a policy file and report every problem; without FILE, the policy in force.

    Of a system that runs (--data-dir, or NABIJ_REDIS_URL) it warns of open incidents whose
    category the policy lacks: they keep its names and limits, but new reports of it are rejected.

    nabij policy check policy.toml
    """
    from nabij.policy_command import run_check

    settings = settings_of(data_dir)
    if not run_check(file or settings.policy, settings, as_json=as_json):
        raise typer.Exit(2)


@app.command()
def contract(
    *,
    directory: Annotated[Path, typer.Argument(metavar="[DIR]")] = Path("docs/contract"),
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; exit with 1 if the files are not up to date."),
    ] = False,
) -> None:
    """Write the contract for machines: AsyncAPI 3.1 and JSON Schemas.

    A change that breaks devices or desks is refused unless its version is raised.

    nabij contract

    nabij contract /tmp/contract
    """
    from nabij.contract_command import run_contract

    if not run_contract(directory, check=check):
        raise typer.Exit(1)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's way
    if wanted:
        from importlib.metadata import version

        typer.echo(f"nabij {version('nabij')}")
        raise typer.Exit


@app.callback()
def nabij(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Nabij: a real-time alert broker for community safety."""


def main() -> NoReturn:
    """Run the command; an error is a paragraph on standard error, never a traceback."""
    try:
        app(prog_name="nabij")
    except Exception as error:  # noqa: BLE001 - the outermost: a sentence and a status
        sys.exit(_status_of(error))
    sys.exit(0)


def _status_of(error: Exception, say: Callable[[str], None] | None = None) -> int:
    """Tell what is wrong, and return the exit status."""
    from broker.core.health import with_mend
    from broker.errors import ConfigError, UnavailableError
    from broker.mqtt.mqtt_errors import MqttError
    from nabij.event_loop import leaves

    say, status = say or _say, 1
    for cause in leaves(error):
        if isinstance(cause, ConfigError):
            say("\n".join(f"nabij: {problem}" for problem in cause.problems))
            status = 2
        elif isinstance(cause, (UnavailableError, MqttError, OSError)):
            say(f"nabij: {with_mend(str(cause))}")
        else:
            say(
                f"nabij: a fault in Nabij: {type(cause).__name__}: {cause} "
                f"({_where(cause)}). Please report it."
            )
    return status


def _where(error: BaseException) -> str:
    frame = error.__traceback__
    while frame and frame.tb_next:
        frame = frame.tb_next
    return f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame else "nowhere"


def _say(text: str) -> None:
    from nabij.output import printable

    typer.echo(printable(text), err=True)


if __name__ == "__main__":
    main()
