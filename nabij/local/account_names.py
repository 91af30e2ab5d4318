"""Names of accounts: one level of a topic, or what the account sends is never heard.

An MQTT broker lets in `Ann` and gives her a PUBACK for each report; no service can tell
whose it is, since `nabij/v1/u/Ann/up/report` is no topic of the contract.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from nabij.local.embedded import NAME

_DESK_TOPIC = re.compile(r"\s*topic\s+(?:\w+\s+)?nabij/v1/police/([^/+#]+)/")


def is_name(name: str) -> bool:
    """Whether an account can be called so."""
    return NAME.fullmatch(name) is not None


def problem_of_name(name: str, what: str = "account") -> str:
    """Return what is wrong with a name that is none, and what to do."""
    return (
        f"the {what} {name!r} would never be heard: a name is 1 to 40 characters of a-z, 0-9 and -; "
        "make it again under another name"
    )


def files_with_names(
    directory: Path, data_dir: Path
) -> Iterator[tuple[str, Path, Callable[[Path], list[str]]]]:
    """Give the files with names in them: of what (account or zone), where, and what reads them.

    `directory` is where Mosquitto is started, `data_dir` that of the embedded MQTT broker.
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
    """Return the zones of the desks that an ACL file names, as they stand in its topics."""
    lines = acl_file.read_text(encoding="utf-8", errors="replace").splitlines()
    return [found[1] for line in lines if (found := _DESK_TOPIC.match(line))]
