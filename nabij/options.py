"""Options that several commands share, and the settings that they come to."""

# ruff: noqa: PLC0415 - `nabij --help` must not wait for what only a command needs

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nabij import completion

if TYPE_CHECKING:
    from broker.runtime.config import Settings

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="The directory in which embedded servers keep their data.", metavar="DIR"
    ),
]
Workers = Annotated[
    list[str] | None,
    typer.Option(
        "--workers",
        help="How many workers a service has; may be repeated.",
        metavar="NAME=N|all=N",
        autocompletion=completion.worker_counts,
    ),
]


def settings_of(data_dir: Path | None, *, quiet: bool = False) -> "Settings":
    """Return the settings, and log as they say; `quiet`: no more than errors unless asked for."""
    from dataclasses import replace

    from broker.runtime import config, log

    settings = config.load()
    if data_dir:
        settings = replace(settings, data_dir=data_dir)
    if quiet and settings.log_level == "info":
        settings = replace(settings, log_level="error")
    log.set_up(settings.log_level, settings.log_format)
    return settings
