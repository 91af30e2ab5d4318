"""`nabij contract`: writes the contract for machines, or checks whether it is up to date."""

import json
from pathlib import Path
from typing import Any

from broker.errors import ConfigError
from nabij.output import print_line, say
from schemas.compatibility import unannounced_changes
from schemas.contract import asyncapi
from schemas.contract_page import documents


def run_contract(directory: Path, *, check: bool) -> bool:
    """Write the documents into `directory`, or compare them; return whether they are up to date.

    Raises:
        ConfigError: they cannot be written, or would break clients of the present ones.
    """
    if not check:
        _refuse_unannounced(directory / "asyncapi.json")
    for name, text in documents().items():
        path = directory / name
        if not check:
            _write(path, text)
            print_line(str(path))
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            say(f"{path} is not what the code says: nabij contract {directory}")
            return False
    return True


def _refuse_unannounced(path: Path) -> None:
    """Refuse changes that break devices or desks, unless the version is raised."""
    if not path.is_file():
        return
    if changes := unannounced_changes(_read(path), asyncapi()):
        told = [f"{path}: {change}" for change in changes]
        raise ConfigError([*told, *_ways_out(path)])


def _ways_out(path: Path) -> tuple[str, str]:
    mend = "undo it, or raise VERSION in schemas/contract.py and tell it in CHANGELOG.md."
    restore = f"git checkout HEAD -- {path}, or the commit before it in place of HEAD"
    return (
        f"This breaks devices or desks: {mend}",
        f"If what it changes is not released yet: {restore}; then run nabij contract again.",
    )


def _read(path: Path) -> Any:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        int(document["info"]["version"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        why = f"not an AsyncAPI document of Nabij ({error!r}), so that breaking changes cannot be seen"
        mend = f"Restore it (git checkout HEAD -- {path}), or write elsewhere."
        raise ConfigError([f"{path}: {why}. {mend}"]) from None
    return document


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
