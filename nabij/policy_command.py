"""What `nabij policy check` prints."""

from pathlib import Path

from broker.core.health import with_mend
from broker.core.policy import Policy
from broker.errors import ConfigError, UnavailableError
from broker.runtime.config import Settings
from broker.store import Opening, open_partitions
from nabij.event_loop import run
from nabij.local.data_directory import DataDir
from nabij.local.policy_file import policy_at, warnings_of
from nabij.output import print_json, print_line, print_table, say


def run_check(file: Path | None, settings: Settings, *, as_json: bool) -> bool:
    """Print what is wrong with the policy, or what it says; return whether it may be used.

    Where a system runs, it warns of what is open there and the policy does not know.
    """
    try:
        policy = policy_at(file)
    except ConfigError as error:
        if as_json:
            print_json({"valid": False, "problems": error.problems})
        for problem in error.problems:
            say(problem)
        return False
    warnings = run(_warnings(policy, settings))
    if as_json:
        told = {"valid": True, "categories": policy.codes, "problems": [], "warnings": warnings}
        print_json(told)
    else:
        _print_policy(policy)
    for warning in warnings:
        say(f"warning: {warning}")
    return True


async def _warnings(policy: Policy, settings: Settings) -> list[str]:
    """Return what a running system has against the policy; nothing is started to find out."""
    running = DataDir(settings.data_dir).running()
    url = settings.redis_url or (running and running.redis_url)
    if not url:
        return []
    try:
        async with open_partitions(url, settings.partitions, opening=Opening.READ) as stores:
            return await warnings_of(policy, stores)
    except UnavailableError as error:
        return [f"open incidents were not looked at: {with_mend(str(error))}"]


def _print_policy(policy: Policy) -> None:
    rows = []
    for code, category in policy.file.categories.items():
        nearby = f"{category.radius_m} m, {category.audience}" if category.radius_m else "nobody"
        merging = f"{category.merge_m} m, {category.merge_s} s"
        desk = f"{category.desk} {category.priority}"
        rows.append([code, category.urgency.value, desk, nearby, merging])
    print_table(["category", "urgency", "desk", "alerted within", "merged within"], rows)
    print_line(f"valid: {len(policy.codes)} categories")
