"""The wheel and the image hold what runs, and what is imported is brought by the base or an extra."""

import ast
import re
import shutil
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PACKAGES = ("schemas", "broker", "services", "devices", "verify", "nabij", "bench")
DISTRIBUTIONS = {"hdrh": "hdrhistogram", "paho": "paho-mqtt"}  # others are called as their module
# What an extra brings, and where alone it is imported.
FROM_EXTRAS = {"pyproj": ("replay", "nabij/geodata/places.py")}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[><=~ ]", each)[0] for each in requirements}


BASE = names(PROJECT["dependencies"])


def imported(*packages: str) -> Iterator[tuple[str, str]]:
    """Yield the distribution that each third-party import is of, with the file."""
    for path in (path for one in packages for path in (REPOSITORY / one).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module]
            for module in {each.partition(".")[0] for each in modules}:
                if module not in sys.stdlib_module_names and module not in PACKAGES:
                    name = DISTRIBUTIONS.get(module, module.replace("_", "-"))
                    yield name, str(path.relative_to(REPOSITORY))


def test_the_base_brings_all_that_product_and_proof_import_but_for_what_an_extra_does() -> None:
    for name, path in imported(*PACKAGES[:-1]):
        if name in FROM_EXTRAS:
            extra, where = FROM_EXTRAS[name]
            assert path == where
            assert name in names(EXTRAS[extra])
        else:
            assert name in BASE, f"{path} imports {name}, which no dependency brings"


def test_the_base_brings_nothing_that_is_not_imported() -> None:
    assert not BASE - {name for name, _ in imported(*PACKAGES[:-1])}


def test_an_extra_brings_what_the_benchmarks_import_beyond_the_base() -> None:
    found = {name for name, _ in imported("bench")}
    assert found - BASE == names(EXTRAS["bench"])


def test_the_client_kit_needs_little() -> None:
    kit = {name for name, _ in imported("devices")}
    assert kit == {"aiomqtt", "paho-mqtt"}  # msgspec and uuid-utils come by schemas
    assert {name for name, _ in imported("schemas")} == {"msgspec", "uuid-utils"}


# -- built --


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    return built(REPOSITORY, tmp_path_factory.mktemp("wheel"))


def built(source: Path, directory: Path) -> set[str]:
    """The names of the files in the wheel that is built of `source`."""
    (path,) = WheelBuilder(str(source)).build(directory=str(directory), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_every_package_with_its_data_and_nothing_else(wheel: set[str]) -> None:
    sources = {
        str(path.relative_to(REPOSITORY))
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    shared = {"nabij/local/mosquitto.conf", "nabij/local/mosquitto.acl"}
    assert wheel == sources | shared
    assert {"schemas/policy.toml", "broker/store/kernel/scripts/commit.lua"} < wheel


def test_the_image_holds_what_runs_in_it_all_but_the_benchmarks(
    wheel: set[str], tmp_path: Path
) -> None:
    """What the Dockerfile copies, and .dockerignore lets in, makes the same wheel without them."""
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    copied = [
        name
        for line in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE)
        for name in line.split()
    ]
    let_in = re.findall(r"^!(\S+)$", (REPOSITORY / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(copied) == sorted(let_in)
    source = tmp_path / "image"
    source.mkdir()
    for name in copied:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)

    held = built(source, tmp_path / "wheel")

    assert held == {name for name in wheel if not name.startswith("bench/")}
    assert 'pip install --no-cache-dir --disable-pip-version-check ".[replay]"' in dockerfile
