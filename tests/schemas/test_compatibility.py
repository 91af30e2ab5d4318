"""A change that breaks devices or desks is seen, and needs another version of the contract."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.errors import ConfigError
from nabij.contract_command import run_contract
from schemas.compatibility import breaking_changes, unannounced_changes
from schemas.contract import asyncapi, written

CHECKED_IN = Path(__file__).parents[2] / "docs" / "contract" / "asyncapi.json"
U, DOWN = "nabij/v1/u/+/up", "nabij/v1/u/+/down"

Change = Callable[[Any], object]


def schema(document: Any, name: str) -> Any:
    return document["components"]["schemas"][name]


def field(document: Any, name: str, key: str) -> Any:
    return schema(document, name)["properties"][key]


def without_topic(document: Any, operation: str) -> None:
    channel = document["operations"].pop(operation)["channel"]["$ref"].rpartition("/")[2]
    del document["channels"][channel]


def readdress(document: Any, channel: str, old: str, new: str) -> None:
    at = document["channels"][channel]
    at["address"] = at["address"].replace(old, new)


BREAKING: dict[str, tuple[Change, str]] = {
    "a field that Nabij sent": (
        lambda d: schema(d, "Alert")["properties"].pop("advice"),
        f"{DOWN}/alert: Alert.advice is gone",
    ),
    "a field that Nabij understood": (
        lambda d: schema(d, "Report")["properties"].pop("audience"),
        f"{U}/report: Report.audience is gone",
    ),
    "a field of a part": (
        lambda d: schema(d, "Position")["properties"].pop("lat"),
        f"{DOWN}/alert: Alert.location.lat is gone",
    ),
    "a field that was always sent": (
        lambda d: schema(d, "Alert")["required"].remove("expires_at"),
        f"{DOWN}/alert: Alert.expires_at may be left out now",
    ),
    "another type of what is sent": (
        lambda d: field(d, "Alert", "wave").update(type="string"),
        f"{DOWN}/alert: Alert.wave was integer, is string",
    ),
    "another format of what is sent": (
        lambda d: field(d, "Alert", "seen_at").update(format="date"),
        f"{DOWN}/alert: Alert.seen_at was string date-time, is string date",
    ),
    "null where there was none": (
        lambda d: schema(d, "Alert")["properties"].update(
            wave={"anyOf": [{"type": "integer"}, {"type": "null"}]}
        ),
        f"{DOWN}/alert: Alert.wave was integer, is integer or null",
    ),
    "another type of items": (
        lambda d: field(d, "Receipt", "notes")["items"].update(type="integer"),
        f"{DOWN}/receipt: Receipt.notes[] was string, is integer",
    ),
    "another type of what is received": (
        lambda d: field(d, "Report", "text").update(type="integer"),
        f"{U}/report: Report.text was string, is integer",
    ),
    "null that was taken": (
        lambda d: field(d, "Presence", "location")["anyOf"].pop(),
        f"{U}/presence: Presence.location was object or null, is object",
    ),
    "values of a map": (
        lambda d: field(d, "Sync", "groups")["additionalProperties"]["items"].update(type="null"),
        f"{U}/sync: Sync.groups.*[] was integer, is null",
    ),
    "an old field that is needed now": (
        lambda d: schema(d, "Report")["required"].append("text"),
        f"{U}/report: Report.text is needed now",
    ),
    "a new field that is needed": (
        lambda d: (
            schema(d, "Report")["properties"].update(severity={"type": "integer"}),
            schema(d, "Report")["required"].append("severity"),
        ),
        f"{U}/report: Report.severity is needed now",
    ),
    "a value that was taken": (
        lambda d: schema(d, "Availability")["enum"].remove("on_duty"),
        f"{U}/presence: Presence.availability has no 'on_duty' any more",
    ),
    "a value that was sent": (
        lambda d: schema(d, "Outcome")["enum"].remove("rejected"),
        f"{DOWN}/receipt: Receipt.outcome has no 'rejected' any more",
    ),
    "a smaller limit": (
        lambda d: field(d, "Report", "text").update(maxLength=500),
        f"{U}/report: Report.text has maxLength 500, had 2000",
    ),
    "a new limit": (
        lambda d: field(d, "Report", "text").update(minLength=1),
        f"{U}/report: Report.text has minLength 1, had none",
    ),
    "a topic that Nabij sent on": (
        lambda d: without_topic(d, "send_u_down_brief"),
        f"{DOWN}/brief: Nabij does not send on it any more",
    ),
    "a topic that Nabij listened to": (
        lambda d: without_topic(d, "receive_u_up_answer"),
        f"{U}/answer: Nabij does not receive on it any more",
    ),
    "another topic": (
        lambda d: readdress(d, "u_up_answer", "/answer", "/response"),
        f"{U}/answer: Nabij does not receive on it any more",
    ),
    "one command of several": (
        lambda d: d["channels"]["police_command"]["messages"].pop("Assign"),
        "nabij/v1/police/+/command: Assign is gone",
    ),
}


@pytest.mark.parametrize("what", BREAKING)
def test_a_breaking_change_is_told_with_where_it_is_unless_the_version_is_raised(what: str) -> None:
    change, told = BREAKING[what]
    before, after = asyncapi(), copy.deepcopy(asyncapi())
    change(after)

    assert told in breaking_changes(before, after)
    assert unannounced_changes(before, after) == breaking_changes(before, after)
    after["info"]["version"] = str(int(before["info"]["version"]) + 1)
    assert unannounced_changes(before, after) == []


HARMLESS: dict[str, Change] = {
    "nothing": lambda _: None,
    "a new field, sent": lambda d: schema(d, "Alert")["properties"].update(sound={"type": "null"}),
    "a new field, received": lambda d: schema(d, "Report")["properties"].update(n={"type": "null"}),
    "always sent from now on": lambda d: schema(d, "Alert")["required"].append("text"),
    "not needed any more": lambda d: schema(d, "Report")["required"].remove("seen_at"),
    "a new value, sent": lambda d: schema(d, "AlertReason")["enum"].append("drifted_in"),
    "a new value, received": lambda d: schema(d, "Availability")["enum"].append("asleep"),
    "null is taken too": lambda d: schema(d, "Report")["properties"].update(
        text={"anyOf": [{"type": "string", "maxLength": 2000}, {"type": "null"}]}
    ),
    "a larger limit": lambda d: field(d, "Report", "text").update(maxLength=5000),
    "no limit": lambda d: field(d, "Report", "text").pop("maxLength"),
    "other words": lambda d: schema(d, "Report").update(description="Seen."),
    "another name of a level": lambda d: readdress(d, "u_up_answer", "{user}", "{who}"),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_breaks_nobody_needs_no_other_version(what: str) -> None:
    after = copy.deepcopy(asyncapi())
    HARMLESS[what](after)
    assert breaking_changes(asyncapi(), after) == []


def test_a_new_value_breaks_readers_whose_contract_does_not_say_how_to_read_it() -> None:
    before = asyncapi()
    field(before, "Alert", "reason")["anyOf"].pop()  # as in version 1
    after = copy.deepcopy(before)
    schema(after, "AlertReason")["enum"].append("drifted_in")
    told = f"{DOWN}/alert: Alert.reason may be 'drifted_in' now"
    assert breaking_changes(before, after) == [told]
    opened = breaking_changes(before, asyncapi())
    assert opened == [
        f"{DOWN}/alert: Alert.reason was one of some values, is one of some values or string"
    ]


def test_a_new_topic_breaks_nobody() -> None:
    before = copy.deepcopy(asyncapi())
    without_topic(before, "send_u_down_brief")
    assert breaking_changes(before, asyncapi()) == []


def test_the_code_breaks_nothing_that_is_checked_in_without_another_version() -> None:
    assert unannounced_changes(json.loads(CHECKED_IN.read_text("utf-8")), asyncapi()) == []


def test_the_command_writes_over_no_contract_that_it_would_break(tmp_path: Path) -> None:
    promised = asyncapi()
    schema(promised, "Alert")["properties"]["sound"] = {"type": "string"}
    path = tmp_path / "asyncapi.json"
    path.write_text(was := json.dumps(promised), "utf-8")

    with pytest.raises(ConfigError, match=r"Alert\.sound is gone(.|\n)*raise VERSION") as refused:
        run_contract(tmp_path, check=False)
    assert f"not released yet: git checkout HEAD -- {path}" in str(refused.value)
    assert path.read_text("utf-8") == was

    promised["info"]["version"] = "0"
    path.write_text(json.dumps(promised), "utf-8")
    assert run_contract(tmp_path, check=False)
    assert path.read_text("utf-8") == written(asyncapi())


@pytest.mark.parametrize("text", ["<<<<<<< HEAD", "[]", '{"info": {"version": "one"}}'])
def test_the_command_compares_with_no_file_that_it_cannot_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "asyncapi.json").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match="git checkout HEAD"):
        run_contract(tmp_path, check=False)
    assert (tmp_path / "asyncapi.json").read_text("utf-8") == text
