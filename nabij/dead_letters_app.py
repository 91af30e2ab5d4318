"""The commands of `nabij dead-letters`, and their options."""

# ruff: noqa: PLC0415 - `nabij --help` must not wait for what only a command needs

from typing import Annotated

import typer

from nabij.options import DataDir, Json, settings_of

dead_letters_app = typer.Typer(help="Messages that no service could handle.", no_args_is_help=True)

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID")]
All = Annotated[bool, typer.Option("--all", help="All dead letters.")]


@dead_letters_app.command("list")
def list_dead_letters(*, as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the dead letters, oldest first.

    nabij dead-letters list
    """
    from nabij.dead_letters_command import run_list

    run_list(settings_of(data_dir, quiet=True), as_json=as_json)


@dead_letters_app.command("show")
def show_dead_letter(
    *,
    identifier: Annotated[str, typer.Argument(metavar="ID")],
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Show one dead letter in full, with its payload.

    nabij dead-letters show 0d3ad8f4-41a8-5c35-9a52-0f5a2f0e3f6c
    """
    from nabij.dead_letters_command import run_show

    if not run_show(settings_of(data_dir, quiet=True), identifier, as_json=as_json):
        raise typer.Exit(1)


@dead_letters_app.command("replay")
def replay_dead_letters(
    *, ids: Ids = None, everything: All = False, as_json: Json = False, data_dir: DataDir = None
) -> None:
    """Send messages to their topics and events to their streams again.

    A dead letter that is handled now is deleted; one that fails again becomes a new dead letter.
    Exit with 1 unless all were handled.

    nabij dead-letters replay --all
    """
    from nabij.dead_letters_command import run_replay

    settings = settings_of(data_dir, quiet=True)
    if not run_replay(settings, ids or [], everything=everything, as_json=as_json):
        raise typer.Exit(1)


@dead_letters_app.command("drop")
def drop_dead_letters(
    *, ids: Ids = None, everything: All = False, as_json: Json = False, data_dir: DataDir = None
) -> None:
    """Delete dead letters.

    nabij dead-letters drop --all
    """
    from nabij.dead_letters_command import run_drop

    settings = settings_of(data_dir, quiet=True)
    if not run_drop(settings, ids or [], everything=everything, as_json=as_json):
        raise typer.Exit(1)
