"""`nabij contract`: writes the contract for machines, or says whether what is there is of today."""

from pathlib import Path

from broker.errors import ConfigError
from nabij.output import print_line, say
from schemas.contract_page import documents


def run_contract(directory: Path, *, check: bool) -> bool:
    """Write the documents into `directory`, or compare; return whether they are as they must be.

    Raises:
        ConfigError: they cannot be written.
    """
    for name, text in documents().items():
        path = directory / name
        if not check:
            _write(path, text)
            print_line(str(path))
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            say(f"{path} is not what the code says: nabij contract {directory}")
            return False
    return True


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
