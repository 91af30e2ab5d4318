"""What `nabij policy check` prints."""

from pathlib import Path

from broker.core.policy import Policy
from broker.errors import ConfigError
from nabij.output import print_json, print_line, print_table, say
from nabij.policy_file import policy_at


def run_check(file: Path | None, *, as_json: bool) -> bool:
    """Print what is wrong with the policy, or what it says; return whether it may be used."""
    try:
        policy = policy_at(file)
    except ConfigError as error:
        if as_json:
            print_json({"valid": False, "problems": error.problems})
        for problem in error.problems:
            say(problem)
        return False
    if as_json:
        print_json({"valid": True, "categories": policy.codes, "problems": []})
    else:
        _print_policy(policy)
    return True


def _print_policy(policy: Policy) -> None:
    rows = []
    for code, category in policy.file.categories.items():
        nearby = f"{category.radius_m} m, {category.audience}" if category.radius_m else "nobody"
        merging = f"{category.merge_m} m, {category.merge_s} s"
        desk = f"{category.desk} {category.priority}"
        rows.append([code, category.urgency.value, desk, nearby, merging])
    print_table(["category", "urgency", "desk", "alerted within", "merged within"], rows)
    print_line(f"valid: {len(policy.codes)} categories")
