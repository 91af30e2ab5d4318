"""A checkout in which a service with a topic of its own is declared, step by step as in docs/architecture.md.

What a declaration touches is a copy there; the rest are links to the repository. Python run in it
(`run_in`) finds its packages first, so nothing of the repository's own is patched.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
NAME, SUBJECT = "checkins", "checkin"
TEMPLATE = f"u/{{user}}/safe/{SUBJECT}"  # a branch that participants have no right to yet
_COPIED = ("schemas", "services", "docs", "README.md", "docker-compose.yml", "mosquitto.acl")

_PAYLOAD = '''

class CheckIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A participant says where they are safe."""

    id: UUID
    location: Position

    def __post_init__(self) -> None:
        require_version_7(self.id)
'''
_ROW = f"""
CHECK_IN = Topic(
    "{TEMPLATE}",
    messages.CheckIn,
    _PARTICIPANT,
    _SERVICE,
    service="{NAME}",
    receipt=RECEIPT,
    partition="location",
)
"""
_SERVICE = f'''"""Check-ins: takes a participant's word that they are safe."""

from broker.runtime.service import Context, Effects, Service, outgoing
from schemas import topics
from schemas.messages import CheckIn, Subject

service = Service("{NAME}")


@service.on(topics.CHECK_IN)
async def take(said: CheckIn, ctx: Context) -> Effects:
    """Say that it was taken."""
    receipt = ctx.accepted(Subject.CHECKIN, said.id)
    return Effects(
        [outgoing(topics.RECEIPT, receipt, correlation=ctx.correlation, user=ctx.user)]
    )
'''


def checkout(directory: Path) -> Path:
    """Lay it out, with nothing declared yet."""
    for path in REPOSITORY.iterdir():
        here = directory / path.name
        if path.name in (".git", ".venv"):
            continue
        if path.name not in _COPIED:
            here.symlink_to(path)
        elif path.is_dir():
            shutil.copytree(path, here)
        else:
            shutil.copy2(path, here)
    return directory


def _after(anchor: str, text: str) -> Callable[[str], str]:
    """Return what puts `text` after the only match of `anchor`."""

    def added(source: str) -> str:
        [found] = re.finditer(anchor, source, re.DOTALL)
        return source[: found.end()] + text + source[found.end() :]

    return added


def _payload(source: str) -> str:
    return _after(r"\n__all__ = \[", '"CheckIn", ')(source) + _PAYLOAD


def _row(source: str) -> str:
    listed = _after(r"\nTOPICS: .*?        REJECTED,\n", "        CHECK_IN,\n")
    return _after(r"(?=\n\nTOPICS: )", _ROW)(listed(source))


# What a developer writes, by file.
DECLARED: dict[str, Callable[[str], str]] = {
    "schemas/messages/from_participants.py": _payload,
    "schemas/messages/receipts.py": _after(
        r"\nclass Subject\(.*?(?=    OTHER = )", f'    {SUBJECT.upper()} = "{SUBJECT}"\n'
    ),
    "schemas/topics.py": _row,
    "schemas/examples.py": _after(
        r"\nEXAMPLES: .*? = \{\n", f'    "{SUBJECT}": m.CheckIn(id=V7, location=THERE),\n'
    ),
    f"services/{NAME}.py": lambda _: _SERVICE,
    "services/__init__.py": _after(r"\nALL = \(.*?(?=\))", f', "{NAME}"'),
}


def declare(tree: Path) -> None:
    """Declare the service in a checkout."""
    for name, change in DECLARED.items():
        path = tree / name
        source = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(change(source), encoding="utf-8")


def environment_of(tree: Path) -> dict[str, str]:
    """Return the environment in which Python looks for packages there first."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("NABIJ_")}
    return {**kept, "PYTHONPATH": str(tree)}


def run_in(tree: Path, module: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a module there, to its end."""
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=tree,
        env=environment_of(tree),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
