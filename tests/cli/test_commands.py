"""The commands that end by themselves, as people and programs call them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from broker.core.policy import Policy
from broker.errors import ConfigError
from broker.runtime.config import SETTINGS
from broker.store import Store
from nabij.local.data_directory import DataDir
from schemas.taxonomy import Desk, default_policy_text
from services import routes
from tests.core.samples import report
from tests.store.samples import open_incident
from verify.commands.replay_command import _in_words

CATEGORIES = Policy.parse(default_policy_text()).file.categories.values()


def run(
    *words: str | Path, cwd: Path | None = None, **settings: str
) -> subprocess.CompletedProcess[str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("NABIJ_")}
    return subprocess.run(
        [sys.executable, "-m", "nabij.cli", *map(str, words)],
        env={**kept, **settings},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def json_of(ran: subprocess.CompletedProcess[str]) -> Any:
    assert ran.stdout.count("\n") == 1, ran.stderr
    return json.loads(ran.stdout)


def test_help_lists_every_command_and_nothing_else_is_loaded() -> None:
    ran = run("--help")
    assert ran.returncode == 0
    for command in ("up", "demo", "replay", "tail", "doctor", "zones", "policy"):
        assert command in ran.stdout
    assert "--install-completion" in ran.stdout


def test_help_of_a_command_teaches_by_example() -> None:
    assert "nabij zones import politiezones.geojson" in run("zones", "import", "--help").stdout
    assert "nabij up --workers alerting=2" in run("up", "--help").stdout


def test_version_is_said() -> None:
    ran = run("--version")
    assert (ran.returncode, ran.stdout.split()[0]) == (0, "nabij")


def test_no_color_is_honoured() -> None:
    ran = run("--help", NO_COLOR="1", FORCE_COLOR="1")
    assert ran.returncode == 0
    assert "\x1b[3" not in ran.stdout


def test_unknown_option_is_a_usage_error() -> None:
    assert run("up", "--speed").returncode == 2


def test_all_bad_settings_are_named_at_once_without_a_traceback() -> None:
    ran = run(
        "up",
        NABIJ_MQTT_URL="http://x",
        NABIJ_HTTP="nowhere",
        NABIJ_LOG_LEVEL="loud",
        NABIJ_TYPO="1",
    )
    assert ran.returncode == 2
    for name in ("NABIJ_MQTT_URL", "NABIJ_HTTP", "NABIJ_LOG_LEVEL", "NABIJ_TYPO"):
        assert f"nabij: {name}" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""


def test_wrong_workers_and_services_are_named_at_once() -> None:
    ran = run("up", "--service", "intak", "--workers", "police=0", "--workers", "x=2")
    assert ran.returncode == 2
    for word in ("--service intak", "--workers police=0", "--workers x=2", "services are intake"):
        assert word in ran.stderr


def test_policy_in_force_is_shown() -> None:
    ran = run("policy", "check")
    assert ran.returncode == 0
    assert f"valid: {len(CATEGORIES)} categories" in ran.stdout
    assert "theft" in json_of(run("policy", "check", "--json"))["categories"]


def test_policy_check_says_all_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    text = default_policy_text()
    file.write_text(text.replace('desk = "city"', 'desk = "cellar"').replace("nl = ", "ln = "))
    ran = run("policy", "check", file, "--json")
    assert ran.returncode == 2
    problems = json_of(ran)["problems"]
    city = [one for one in CATEGORIES if one.desk is Desk.CITY]
    assert sum("Invalid enum value 'cellar'" in problem for problem in problems) == len(city)
    assert sum("names.nl: missing" in problem for problem in problems) == len(CATEGORIES)
    assert ran.stderr.splitlines() == problems


async def test_policy_check_warns_of_what_is_open_and_has_no_category_any_more(
    tmp_path: Path, redis_url: str
) -> None:
    async with Store(redis_url, routes=routes()) as store:
        await open_incident(store, report())
    file = tmp_path / "policy.toml"
    file.write_text(default_policy_text().replace("[categories.fire]", "[categories.blaze]"))

    ran = run("policy", "check", file, "--json", NABIJ_REDIS_URL=redis_url)

    assert ran.returncode == 0
    [warning] = json_of(ran)["warnings"]
    assert warning.startswith("categories.fire: missing, but open incidents are of it (1)")
    assert json_of(run("policy", "check", "--json", NABIJ_REDIS_URL=redis_url))["warnings"] == []


def test_bad_policy_keeps_nabij_from_starting(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[timers]\n")
    ran = run("up", "--data-dir", tmp_path / "data", NABIJ_POLICY=str(file))
    assert ran.returncode == 2
    assert "timers.accept_s: missing" in ran.stderr
    assert not (tmp_path / "data").exists()


def test_doctor_of_a_sound_machine_shows_every_setting_and_no_secret(tmp_path: Path) -> None:
    ran = run("doctor", "--json", "--data-dir", tmp_path, NABIJ_SHARE_GROUP="hush-hush")
    found = json_of(ran)
    assert (ran.returncode, found["ok"]) == (0, True)
    assert [setting["name"] for setting in found["settings"]] == [row.name for row in SETTINGS]
    assert "hush-hush" not in ran.stdout


def test_doctor_finds_what_is_broken(tmp_path: Path, redis_url: str) -> None:
    file = tmp_path / "file"
    file.write_text("max_overdue = 3")
    ran = run(
        "doctor",
        "--json",
        "--data-dir",
        file,
        NABIJ_POLICY=str(file),
        NABIJ_MQTT_URL="mqtt://nabij:sesame@127.0.0.1:9",
        NABIJ_SHARE_GROUP="x",
        NABIJ_REDIS_URL=redis_url,
    )
    assert ran.returncode == 1
    broken = {one["what"] for one in json_of(ran)["findings"] if one["verdict"] == "broken"}
    assert broken == {"policy", "MQTT broker"}
    assert "sesame" not in ran.stdout + ran.stderr


def test_doctor_finds_accounts_that_would_never_be_heard(tmp_path: Path) -> None:
    (tmp_path / "mosquitto.conf").write_text("listener 1883\npassword_file users\n")
    (tmp_path / "users").write_text("nabij:$7$x\nAnn:$7$x\nann.b:$7$x\n")
    (tmp_path / "mosquitto.acl").write_text("topic readwrite nabij/v1/police/Gent/#\n")
    (tmp_path / "accounts.json").write_text('{"bob": "x", "B_ob": "y"}')
    ran = run("doctor", "--json", "--data-dir", tmp_path, cwd=tmp_path)
    broken = [one["found"] for one in json_of(ran)["findings"] if one["verdict"] == "broken"]
    assert ran.returncode == 1
    assert [found.partition(" would never be heard")[0] for found in broken] == [
        f"{tmp_path / 'users'}: the account 'Ann'",
        f"{tmp_path / 'users'}: the account 'ann.b'",
        f"{tmp_path / 'mosquitto.acl'}: the zone 'Gent'",
        f"{tmp_path / 'accounts.json'}: the account 'B_ob'",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"bob": "twelve-or-more"', "accounts.json: Input data was truncated: mend it"),
        ('{"bob": 7}', "accounts.json: Expected `str`, got `int`"),
        ('{"bob": "short"}', "the password of 'bob' is too short: 12 characters or more"),
        ('{"desk-": "twelve-or-more"}', "the account 'desk-' would never be heard"),
        ('{"bob": "twelve-or-more", "bob": "x"}', "the account 'bob' stands there twice"),
    ],
)
def test_a_mistake_in_the_file_of_accounts_is_told(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "accounts.json").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(told)):
        DataDir(tmp_path).passwords(["ann"])
    assert (tmp_path / "accounts.json").read_text() == text


def test_account_that_would_never_be_heard_keeps_nabij_from_starting(tmp_path: Path) -> None:
    (tmp_path / "accounts.json").write_text('{"Bob": "x"}')
    ran = run("up", "--data-dir", tmp_path)
    assert ran.returncode == 2
    assert "the account 'Bob' would never be heard: a name is 1 to 40" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_doctor_lists_every_bad_setting() -> None:
    ran = run("doctor", NABIJ_HTTP="x", NABIJ_LOG_FORMAT="x")
    assert ran.returncode == 1
    assert ran.stdout.count("broken  settings:") == 2


def test_zones_of_a_file_are_imported_listed_and_found(tmp_path: Path, redis_url: str) -> None:
    square = [[3.7, 51.0], [3.8, 51.0], [3.8, 51.1], [3.7, 51.1], [3.7, 51.0]]
    file = tmp_path / "zones.geojson"
    file.write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": [
                    {
                        "type": "Feature",
                        "properties": {"code": "PZ Één", "name": "PZ Één"},
                        "geometry": {"type": "Polygon", "coordinates": [square]},
                    },
                    {"type": "Feature", "properties": {"name": "Leeg"}, "geometry": None},
                ],
            }
        )
    )
    imported = run(
        "zones", "import", file, "--id-property", "code", "--json", NABIJ_REDIS_URL=redis_url
    )
    assert imported.returncode == 0, imported.stderr
    assert json_of(imported)["police"] == 1
    skipped = [{"feature": "features[1] ('Leeg')", "reason": "has no geometry"}]
    assert json_of(imported)["skipped"] == skipped
    assert "skipped 1: has no geometry: features[1] ('Leeg')" in imported.stderr
    assert "the id 'PZ Één' becomes pz-een" in imported.stderr
    listed = json_of(run("zones", "list", "--json", NABIJ_REDIS_URL=redis_url))
    assert [(zone["id"], zone["name"]) for zone in listed] == [("pz-een", "PZ Één")]
    found = run("zones", "at", "51.05,3.75", "--json", NABIJ_REDIS_URL=redis_url)
    assert json_of(found) == {"police": "pz-een", "municipality": "unassigned"}
    assert "pz-een" in run("zones", "at", "51.05,3.75", NABIJ_REDIS_URL=redis_url).stdout


def test_another_number_of_partitions_than_what_is_there_is_refused(redis_url: str) -> None:
    file = Path(__file__).parents[2] / "nabij" / "local" / "demo_zones.geojson"
    assert run("zones", "import", file, NABIJ_REDIS_URL=redis_url).returncode == 0
    refused = run("zones", "list", NABIJ_REDIS_URL=redis_url, NABIJ_PARTITIONS="16")
    assert refused.returncode == 2
    assert "NABIJ_PARTITIONS: 16; but what is in Redis is filed in 1" in refused.stderr


def test_up_refuses_the_data_of_a_newer_release_and_says_what_to_do(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.mset({"nabij:{p0}:schema-version": 999, "nabij:{p0}:partitions": 1})

        refused = run("up", NABIJ_REDIS_URL=redis_url)

        assert refused.returncode == 2
        assert "schema version 999" in refused.stderr
        assert "install the release that wrote it or a newer one" in refused.stderr
        assert client.dbsize() == 2


def test_zones_are_kept_in_the_data_directory_when_no_redis_is_configured(tmp_path: Path) -> None:
    file = Path(__file__).parents[2] / "nabij" / "local" / "demo_zones.geojson"
    assert run("zones", "import", file, "--data-dir", tmp_path).returncode == 0
    listed = json_of(run("zones", "list", "--json", "--data-dir", tmp_path))
    assert len(listed) == 6


def test_real_zones_are_imported(shared_data: Callable[[str], Path], redis_url: str) -> None:
    for name, place in (("politiezones", "police"), ("gemeenten", "municipality")):
        file = shared_data(f"geo/{name}.geojson")
        ran = run("zones", "import", file, "--json", NABIJ_REDIS_URL=redis_url)
        assert ran.returncode == 0, ran.stderr
        assert json_of(ran)[place] == {"police": 107, "municipality": 304}[place]
    found = run("zones", "at", "51.0543,3.7217", "--json", NABIJ_REDIS_URL=redis_url)
    assert json_of(found) == {"police": "ipz93", "municipality": "44021"}


@pytest.mark.parametrize("place", ["here", "91,0", "0,181", "51.0", "nan,nan"])
def test_bad_place_is_a_usage_error(place: str, tmp_path: Path) -> None:
    ran = run("zones", "at", place, "--data-dir", tmp_path)
    assert ran.returncode == 2
    assert "LAT,LON" in ran.stderr


def test_bad_zones_file_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "zones.geojson"
    file.write_text("{")
    ran = run("zones", "import", file, "--data-dir", tmp_path / "data")
    assert ran.returncode == 2
    assert f"nabij: {file}: not a GeoJSON" in ran.stderr
    assert run("zones", "import", tmp_path / "none").returncode == 2


def test_redis_that_does_not_answer_is_a_failure_in_one_sentence() -> None:
    ran = run("zones", "list", NABIJ_REDIS_URL="redis://127.0.0.1:9")
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert "Traceback" not in ran.stderr


def test_tail_without_a_broker_says_so(tmp_path: Path) -> None:
    ran = run("tail", "--data-dir", tmp_path)
    assert ran.returncode == 2
    assert "no MQTT broker" in ran.stderr


@pytest.mark.parametrize("bad", ["a/#/b", "a+/b", "$share/x/nabij/#"])
def test_tail_refuses_what_is_no_filter_or_would_swallow_messages(bad: str) -> None:
    ran = run("tail", bad, NABIJ_MQTT_URL="mqtt://127.0.0.1:9", NABIJ_SHARE_GROUP="x")
    assert ran.returncode == 2


def test_replay_names_every_wrong_option(tmp_path: Path) -> None:
    ran = run(
        "replay",
        tmp_path / "a.csv",
        "--map",
        "zurich",
        "--tracks",
        tmp_path / "b.csv",
        "--speed",
        "-1",
    )
    assert ran.returncode == 2
    for word in ("a.csv: no such file", "b.csv: no such file", "--speed -1"):
        assert word in ran.stderr


def test_replay_reads_zones_and_tracks_before_all_else(tmp_path: Path) -> None:
    stream, tracks, zones = (tmp_path / name for name in ("a.csv", "b.csv", "c.geojson"))
    stream.write_text("never read")
    tracks.write_text("track,t_s,x_m,y_m\n1,0,0,0\n1,zes,0,0\n")
    ring = [[3, 51], [3.1, 51], [3.1, 51.1], [3, 51]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    zone = {"type": "Feature", "properties": {"nis": "44021"}, "geometry": geometry}
    zones.write_text(json.dumps({"type": "FeatureCollection", "features": [zone]}))
    words = ("replay", stream, "--map", "zurich", "--tracks", tracks, "--zones", zones)
    ran = run(*words)
    assert ran.returncode == 2
    assert "has no property 'id'; --id-property names another: it has 'nis'" in ran.stderr
    ran = run(*words, "--id-property", "nis")
    assert ran.returncode == 2
    assert ran.stderr == f"nabij: {tracks}: line 3: t_s, x_m and y_m must be numbers\n"


def test_replay_of_rows_that_are_all_bad_says_why_and_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(
        "ts_local,lat,lon,category\ngisteren,47,8,Graffiti\n2016-01-01,47,8,Ruimtepuin\n"
    )
    ran = run("replay", file, "--map", "zurich", "--since", "2015-01-01")
    assert ran.returncode == 2
    assert ran.stderr.splitlines() == [
        f"nabij: {file}: none of its 2 rows can be used:",
        "  1 row: the time cannot be read as iso; first in line 2: 'gisteren'",
        "  1 row: no rule for the category 'Ruimtepuin'",
    ]


def test_replay_of_an_unknown_mapping_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("a,b\n1,2\n")
    ran = run("replay", file, "--map", "atlantis", "--participants", "2")
    assert ran.returncode == 2
    assert "atlantis" in ran.stderr


def test_a_result_is_printed_in_words_not_as_python_writes_it() -> None:
    assert _in_words(12_345) == "12,345"
    assert _in_words({"theft": 12, "fire": 3}) == "theft 12, fire 3"
    assert _in_words(({"line": 4}, "no time")) == "line 4; no time"
    assert _in_words(0.5) == "0.5"
    assert _in_words({"p50_ms": None}) == "p50_ms none"
