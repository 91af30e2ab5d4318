"""Names of accounts: one level of a topic, or what the account sends is never heard.

An MQTT broker lets in `Ann` and gives her a PUBACK for each report; no service of ours can tell
whose it is, since `nabij/v1/u/Ann/up/report` is no topic of the contract.
"""

import re
from pathlib import Path

import msgspec

from broker.embedded import NAME

_PASSWORD_FILE = re.compile(r"^\s*password_file\s+(\S.*?)\s*$", re.MULTILINE)


def is_name(name: str) -> bool:
    """Whether an account can be called so."""
    return NAME.fullmatch(name) is not None


def problem_of_name(name: str) -> str:
    """Return what is wrong with a name that is none, and what to do."""
    return (
        f"the account {name!r} would never be heard: a name is 1 to 40 characters of a-z, 0-9 and -; "
        "make it again under another name"
    )


def password_file_in(directory: Path) -> Path | None:
    """Return Mosquitto's password file there: what mosquitto.conf names, else `passwd`."""
    try:
        config = (directory / "mosquitto.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        config = ""
    named = _PASSWORD_FILE.findall(config)
    path = directory / (named[-1] if named else "passwd")
    return path if path.is_file() else None


def names_in(password_file: Path) -> list[str]:
    """Return the accounts of a file that mosquitto_passwd has written: `name:hash` lines."""
    lines = password_file.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.partition(":")[0] for line in lines if line.strip() and not line.startswith("#")]


def names_of_embedded(accounts_file: Path) -> list[str]:
    """Return the accounts of the embedded MQTT broker: a JSON object of passwords by name."""
    return [*msgspec.json.decode(accounts_file.read_bytes(), type=dict[str, str])]
