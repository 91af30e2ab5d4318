"""`nabij replay`, as the command line has it."""

# ruff: noqa: PLC0415 - `nabij --help` must not wait for what only a command needs

from pathlib import Path
from typing import Annotated

import typer

from nabij import completion
from nabij.options import DataDir, Json, Workers, settings_of


def replay(  # noqa: PLR0913 - a replay has that many options
    *,
    stream: Annotated[Path, typer.Argument(metavar="FILE.csv[.gz]")],
    mapping: Annotated[
        str | None,
        typer.Option(
            "--map",
            help="How to read the file: montgomery, groningen, zurich, or a mapping of your own.",
            metavar="NAME|FILE",
            autocompletion=completion.mappings,
        ),
    ] = None,
    inspect: Annotated[
        bool, typer.Option("--inspect", help="Look at FILE and propose a mapping for it.")
    ] = False,
    origin: Annotated[
        str,
        typer.Option(help="Where the median place of the stream is moved to.", metavar="LAT,LON"),
    ] = "51.0543,3.7217",
    participants: Annotated[
        int, typer.Option(min=1, max=50_000, help="How many people live where it happens.")
    ] = 500,
    tracks: Annotated[
        Path | None,
        typer.Option(
            help="CSV of tracks that people move along; default: they stand still.",
            metavar="FILE.csv[.gz]",
        ),
    ] = None,
    speed: Annotated[
        str, typer.Option(help="How many times faster than in reality.", metavar="X|max")
    ] = "max",
    since: Annotated[
        str | None, typer.Option(help="Only what happened then or later.", metavar="DAY|TIME")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(help="Only what happened before; a day counts whole.", metavar="DAY|TIME"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Replay only the first N reports.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of where people live and how they answer.")] = 0,
    zones: Annotated[
        list[Path] | None,
        typer.Option(
            help="GeoJSON of zones; may be repeated; default: three built-in ones.",
            metavar="FILE.geojson",
        ),
    ] = None,
    id_property: Annotated[
        str, typer.Option(help="The property of the zones with their id.", metavar="NAME")
    ] = "id",
    accounts: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of {user: password}; needed with NABIJ_MQTT_URL.", metavar="FILE.json"
        ),
    ] = None,
    workers: Workers = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the result with the oracle.")
    ] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Replay a real stream of reports; with --verify, exit with 1 if anything is missing or unexpected.

    nabij replay calls.csv --inspect > mine.toml

    nabij replay calls.csv --map mine.toml --participants 2000 --tracks walks.csv.gz
    --zones politiezones.geojson --verify

    nabij replay thefts.csv --map mine.toml --origin 50.83,3.26 --since 2016-05-01 --speed 60

    --inspect writes a mapping to standard output, and what it would make of the file to standard
    error; 1 if no row could be used. A replay starts servers of its own. With NABIJ_REDIS_URL
    alone it takes that Redis, if it is empty; with NABIJ_MQTT_URL it only connects, to services
    that run already.
    """
    from nabij.event_loop import Interrupted, ending_cleanly, run_until_signal
    from nabij.local.data_directory import temporary_unless
    from nabij.up import workers_of
    from nabij.zones_command import place_of
    from verify.commands.replay_command import (
        ReplayOptions,
        check_files_of,
        plan_of,
        read_stream_of,
        run_replay,
    )

    if inspect:
        from verify.commands.inspect_command import run_inspect

        raise typer.Exit(0 if run_inspect(settings_of(data_dir), stream, as_json=as_json) else 1)
    counts = workers_of([], workers or [])
    plan = plan_of(
        stream,
        mapping=mapping,
        origin=place_of(origin),
        participants=participants,
        tracks=tracks,
        speed=speed,
        limit=limit,
        seed=seed,
        zones=zones or [],
        id_property=id_property,
        verify=verify,
        policy=settings_of(data_dir, quiet=True).policy,
        between=(since, until),
    )
    check_files_of(plan)
    options = ReplayOptions(plan, read_stream_of(plan), accounts, as_json)
    with ending_cleanly(), temporary_unless(data_dir) as directory:
        settings = settings_of(directory, quiet=True)
        try:
            passed = run_until_signal(run_replay(settings, counts, options))
        except Interrupted:
            raise typer.Exit(1) from None
    raise typer.Exit(0 if passed else 1)
