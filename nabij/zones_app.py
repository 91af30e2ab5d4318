"""`nabij zones`, as the command line has it."""

# ruff: noqa: PLC0415 - `nabij --help` must not wait for what only a command needs

from pathlib import Path
from typing import Annotated

import typer

from nabij import completion
from nabij.options import DataDir, Json, settings_of

zones_app = typer.Typer(help="Police zones and municipalities.", no_args_is_help=True)


@zones_app.command("import")
def import_zones(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE.geojson")],
    kind: Annotated[
        str | None,
        typer.Option(
            help="police or municipality, for all features, in place of the kinds in the file.",
            autocompletion=completion.zone_kinds,
        ),
    ] = None,
    id_property: Annotated[
        str, typer.Option(help="The property with the ids to use in topics.", metavar="NAME")
    ] = "id",
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Import polygons as zones; they replace the zones of the same kind.

    nabij zones import politiezones.geojson

    nabij zones import gemeenten.geojson --kind municipality --id-property nis_code

    What has no area is skipped and named; an id is made lower case, with - for all but a-z and
    0-9. Projected coordinates are turned into degrees if the file's crs says which they are.
    """
    from nabij.zones_command import run_import

    run_import(settings_of(data_dir), file, kind, id_property, as_json=as_json)


@zones_app.command("list")
def list_zones(*, as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the zones in the store.

    nabij zones list
    """
    from nabij.zones_command import run_list

    run_list(settings_of(data_dir), as_json=as_json)


@zones_app.command("at", context_settings={"ignore_unknown_options": True})
def zone_at(
    *,
    place: Annotated[str, typer.Argument(metavar="LAT,LON")],
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Print the zones that a place is in.

    nabij zones at 51.0543,3.7217
    """
    from nabij.zones_command import run_at

    run_at(settings_of(data_dir), place, as_json=as_json)
