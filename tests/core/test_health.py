"""What an operator is told of each error of Redis, and when reports are not handled.

After a change that is meant: `python -m tests.core.test_health` writes the golden file.
"""

import json
from pathlib import Path

import msgspec
import pytest

from broker.core.health import Cause, Health, Severity, is_disk_full, redis_cause, stops, with_mend

GOLDEN = Path(__file__).parent / "golden" / "health.json"

# As Redis 7 says it, and the system where it does.
ERRORS = (
    "MISCONF Errors writing to the AOF file: No space left on device",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY You can't write against a read only replica.",
    "NOREPLICAS Not enough good replicas to write.",
    "LOADING Redis is loading the dataset in memory",
    "NOPERM User nabij has no permissions to run the 'evalsha' command",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "[Errno 122] Disk quota exceeded",
    "write: ENOSPC",
    "Error 111 connecting to 127.0.0.1:6379. Connection refused.",
    "",
)


def _told() -> dict[str, dict[str, str]]:
    return {
        error: {**msgspec.to_builtins(redis_cause(error, "Redis")), "told": with_mend(error)}
        for error in ERRORS
    }


def test_each_error_of_redis_has_its_cause_and_its_cure() -> None:
    assert _told() == json.loads(GOLDEN.read_text("utf-8"))


def test_an_error_that_is_known_has_a_code_of_its_own() -> None:
    codes = [redis_cause(error, "Redis").code for error in ERRORS]
    assert len(set(codes[:9])) == 9
    assert codes[0] == codes[9] == codes[10] == "disk_full"
    assert codes[-2:] == ["redis_down", "redis_down"]


def test_a_text_that_is_not_of_redis_is_left_as_it_is_unless_the_disk_is_full() -> None:
    for error in ERRORS:
        assert is_disk_full(error) == (with_mend(error) != error)
    assert sum(map(is_disk_full, ERRORS)) == 3


@pytest.mark.parametrize("error", ERRORS[:9])
def test_who_starts_a_command_is_told_what_redis_lacks_where_and_how_to_mend_it(error: str) -> None:
    problem = f"Redis at db:6379: {error}"
    cause = redis_cause(problem, problem)
    assert "db:6379" in cause.what
    assert with_mend(problem) == f"{cause.what}: {cause.mend}"


@pytest.mark.parametrize(
    "problem",
    [
        "no Redis at db:6379: [Errno 111] Connection refused",
        "Redis at db:1883: the connection broke: closed by Redis",
    ],
)
def test_who_starts_a_command_where_no_redis_is_is_told_the_setting(problem: str) -> None:
    assert with_mend(problem) == f"{problem}: start Redis, or mend NABIJ_REDIS_URL"
    assert with_mend("Redis at db:6379: ERR what") == "Redis at db:6379: ERR what"


@pytest.mark.parametrize(
    "severities", [[], [Severity.DEGRADES, Severity.NOTE], [Severity.STOPS], [*Severity]], ids=str
)
def test_reports_are_handled_unless_a_cause_stops_them(severities: list[Severity]) -> None:
    causes = tuple(Cause(code="c", what="w", mend="m", severity=one) for one in severities)
    assert stops(causes) == (Severity.STOPS in severities)
    assert Health(causes=causes).is_ready == (Severity.STOPS not in severities)


def test_health_is_not_good_before_anything_was_tried() -> None:
    assert msgspec.to_builtins(Health()) == {
        "causes": (),
        "mqtt_up": False,
        "redis_up": False,
        "mqtt_round_trip_s": None,
        "redis_answer_s": None,
        "clock_jump_s": 0.0,
        "clock_jumps": 0,
    }
    assert Cause(code="c", what="w", mend="m").severity is Severity.STOPS
    assert [*Severity] == ["stops", "degrades", "note"]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(_told(), indent=1) + "\n", "utf-8")
