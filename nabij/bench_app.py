"""The commands of `nabij bench`."""

import importlib
from pathlib import Path
from typing import Annotated

import typer

from broker.errors import ConfigError
from nabij import completion
from nabij.options import Json


def bench(
    name: Annotated[
        str,
        typer.Argument(
            help="latency, fanout, saturation, presence, mixed, scale, restart, peers, stages, workers, broker, or all.",
            autocompletion=completion.benchmarks,
        ),
    ],
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="A short form: at most 50 s each, broker some minutes.")
    ] = False,
    as_json: Json = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a report with plots to this file.")
    ] = None,
) -> None:
    """Measure how fast Nabij is, beside a floor measured in the same run. Needs Mosquitto.

    nabij bench latency --quick
    """
    # Imported by name: `bench` is above this package and needs all of it.
    try:
        command = importlib.import_module("bench.command")
    except ModuleNotFoundError as error:
        raise ConfigError(
            [f"{error.name} is not installed: `make bench`, or pip install 'nabij[bench]'"]
        ) from None
    if name not in (*command.NAMES, "all"):
        known = ", ".join((*command.NAMES, "all"))
        raise typer.BadParameter(f"one of {known}", param_hint="NAME")
    raise typer.Exit(command.bench(name, quick=quick, as_json=as_json, html=html))
