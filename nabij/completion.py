"""Completion of option values in the shell; imported only when the shell asks."""

# ruff: noqa: PLC0415 - `nabij --help` must not wait for any of these

import importlib
from collections.abc import Iterable
from importlib import resources


def services(begun: str) -> list[str]:
    """Return the services for `--service`."""
    from services import ALL

    return _beginning(begun, ALL)


def worker_counts(begun: str) -> list[str]:
    """Return the beginnings of values for `--workers`."""
    return [f"{name}=" for name in [*services(begun), *_beginning(begun, ["all"])]]


def mappings(begun: str) -> list[str]:
    """Return the mappings that come with Nabij, for `--map`."""
    files = resources.files("verify.datasets.mappings").iterdir()
    return _beginning(begun, [file.name[:-5] for file in files if file.name.endswith(".toml")])


def engines(begun: str) -> list[str]:
    """Return the MQTT brokers for `--engine`."""
    from nabij.local.embedded import MqttEngine

    return _beginning(begun, MqttEngine)


def zone_kinds(begun: str) -> list[str]:
    """Return the kinds of zones for `--kind`."""
    from broker.core.zones import ZoneKind

    return _beginning(begun, ZoneKind)


def broken_promises(begun: str) -> list[str]:
    """Return the values of `--broken`."""
    from verify.simulation.broken import Broken

    return _beginning(begun, Broken)


def benchmarks(begun: str) -> list[str]:
    """Return the benchmarks, or none if they are not installed."""
    try:
        names = importlib.import_module("bench.command").NAMES
    except ModuleNotFoundError:
        return []
    return _beginning(begun, [*names, "all"])


def topic_filters(begun: str) -> list[str]:
    """Return filters of the contract's topics for `tail`, without the `nabij/v1/` before them."""
    from schemas.topics import TOPICS

    return _beginning(begun, [topic.filter().partition("/v1/")[2] for topic in TOPICS])


def _beginning(begun: str, names: Iterable[str]) -> list[str]:
    return sorted(str(name) for name in names if str(name).startswith(begun))
