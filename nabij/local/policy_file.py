"""The policy in force, from its file."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from broker.core.policy import Policy
from broker.errors import ConfigError
from broker.store import Store
from schemas.taxonomy import default_policy_text


def policy_text(file: Path | None) -> str:
    """Return the text of `file`, or of the policy that is shipped.

    Raises:
        ConfigError: it cannot be read.
    """
    if file is None:
        return default_policy_text()
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{file}: cannot be read: {error}"]) from None


def policy_at(file: Path | None) -> Policy:
    """Return the policy in `file`, or the one that is shipped.

    Raises:
        ConfigError: with every problem in it, and the file's name.
    """
    text = policy_text(file)
    try:
        return Policy.parse(text)
    except ConfigError as error:
        where = file or "the shipped policy"
        raise ConfigError([f"{where}: {problem}" for problem in error.problems]) from None


async def warnings_of(policy: Policy, stores: Sequence[Store]) -> list[str]:
    """Return sentences about open incidents whose category `policy` lacks."""
    count: Counter[str] = Counter()
    for store in stores:
        count += await store.incidents.open_by_category()
    return [
        f"categories.{code}: missing, but open incidents are of it ({number}): they keep its names "
        "and limits until they close, and new reports of it are rejected"
        for code, number in sorted(count.items())
        if policy.category(code) is None
    ]
