"""What README.md, mosquitto.acl and docker-compose.yml repeat of the code, and what they must say.

`.venv/bin/python -m tests.test_readme` writes it into them.
"""

import difflib
import re
from collections.abc import Callable
from pathlib import Path

import services
from broker.identity.acl import acl_lines, patterns
from nabij.local.data_directory import accounts_of
from schemas.topics import TOPICS

REPOSITORY = Path(__file__).parents[1]


def readme(text: str) -> str:
    """The README with the table of topics and the list of services that the code has."""
    table = "\n".join(_topic_rows())
    text = re.sub(r"(?<=\| topic \| payload )(.*\n.*\n)(?:\|.*\n)+", rf"\1{table}\n", text)
    return re.sub(r"(?<=one file each: ).*", " ".join(services.ALL), text)


def _topic_rows() -> list[str]:
    return [
        f"| `{topic.template}` | {getattr(topic.payload, '__name__', 'PoliceCommand')} "
        f"| {' | '.join(topic.from_and_to)} | {'0 or 1' if topic.name == 'presence' else topic.qos} "
        f"| {'yes ' if topic.retain else ''}|"
        for topic in TOPICS
    ]


def acl(text: str) -> str:
    """Mosquitto's ACL file with the rights that the contract gives to the accounts in it."""
    text = re.sub(r"^(?:pattern .*\n)+", _lines(patterns()), text, flags=re.MULTILINE)
    return re.sub(
        r"^user (\S+)\n(?:topic .*\n)*",
        lambda found: _lines(_rights_of(found[1])),
        text,
        flags=re.MULTILINE,
    )


def _rights_of(user: str) -> list[str]:
    [account] = accounts_of({user: ""})
    lines = acl_lines([(user, account.role, account.zone)])
    return [*lines[len(patterns()) :]]


def _lines(some: list[str]) -> str:
    return "".join(f"{one}\n" for one in some)


def compose(text: str) -> str:
    """The compose file with a container for each service."""
    containers = "".join(
        f"  {name}:\n    <<: *service\n    command: [up, --service, {name}]\n\n"
        for name in services.ALL
    )
    return re.sub(r"(?<=\nservices:\n)(?:  \w+:\n    <<: \*service\n.*\n\n)+", containers, text)


WRITTEN: dict[str, Callable[[str], str]] = {
    "README.md": readme,
    "mosquitto.acl": acl,
    "docker-compose.yml": compose,
}


def differences(found: str, wanted: str) -> list[str]:
    """The lines to add (+) and to remove (-), so that what was found says what is wanted."""
    compared = difflib.ndiff(found.splitlines(), wanted.splitlines())
    return [line for line in compared if line[0] in "+-" and line[2:]]


def write() -> None:
    for name, rewritten in WRITTEN.items():
        path = REPOSITORY / name
        path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
