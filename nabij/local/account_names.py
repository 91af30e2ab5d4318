"""Names of accounts: a name that is not a topic level is never heard by the services.

An MQTT broker accepts `Ann` and acknowledges her reports, but `nabij/v1/u/Ann/up/report` is not a
topic of the contract, so no service receives them.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from nabij.local.embedded import NAME

_DESK_TOPIC = re.compile(r"\s*topic\s+(?:\w+\s+)?nabij/v1/police/([^/+#]+)/")


def is_name(name: str) -> bool:
    """Whether an account may have this name."""
    return NAME.fullmatch(name) is not None


def problem_of_name(name: str, what: str = "account") -> str:
    """Return what is wrong with an invalid name, and how to fix it."""
    return (
        f"the {what} {name!r} would never be heard: a name is 1 to 40 characters of a-z, 0-9 and -; "
        "make it again under another name"
    )


def files_with_names(
    directory: Path, data_dir: Path
) -> Iterator[tuple[str, Path, Callable[[Path], list[str]]]]:
    """Yield the files with names: of what (account or zone), the path, and what reads it.

    Mosquitto is started in `directory`; `data_dir` is that of the embedded MQTT broker.
    """
    looked_at = (
        ("account", _file_in(directory, "password_file", "passwd"), names_in),
        ("zone", _file_in(directory, "acl_file", "mosquitto.acl"), zones_in),
        ("account", data_dir / "accounts.json", names_of_embedded),
    )
    for what, path, read in looked_at:
        if path.is_file():
            yield what, path, read


def _file_in(directory: Path, option: str, default: str) -> Path:
    """Return a file of Mosquitto's there: what `option` of mosquitto.conf names, else `default`."""
    try:
        config = (directory / "mosquitto.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        config = ""
    named = re.findall(rf"^\s*{option}\s+(\S.*?)\s*$", config, re.MULTILINE)
    return directory / (named[-1] if named else default)


def names_in(password_file: Path) -> list[str]:
    """Return the accounts of a file that mosquitto_passwd has written: `name:hash` lines."""
    lines = password_file.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.partition(":")[0] for line in lines if line.strip() and not line.startswith("#")]


def names_of_embedded(accounts_file: Path) -> list[str]:
    """Return the accounts of the embedded MQTT broker: a JSON object of passwords by name."""
    return [*msgspec.json.decode(accounts_file.read_bytes(), type=dict[str, str])]


def zones_in(acl_file: Path) -> list[str]:
    """Return the zones of the desks in an ACL file's topics."""
    lines = acl_file.read_text(encoding="utf-8", errors="replace").splitlines()
    return [found[1] for line in lines if (found := _DESK_TOPIC.match(line))]
