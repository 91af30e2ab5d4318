"""Commands that read never create, and never call what is not there empty: no false all-clear."""

import contextlib
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from msgspec.structs import replace

from broker.store import Store
from nabij.local.data_directory import DataDir, Running
from services import routes
from tests.cli.test_commands import json_of, run
from tests.core.samples import START, report
from tests.store.samples import commit, open_incident, opened

READING = (
    ("explain", str(uuid.UUID(int=7))),
    ("dead-letters", "list"),
    ("dead-letters", "replay", "--all"),
    ("dead-letters", "drop", "--all"),
    ("zones", "list"),
    ("zones", "at", "51.0543,3.7217"),
)


@pytest.mark.parametrize("words", [*READING, ("tail",)], ids=lambda words: "-".join(words[:2]))
def test_where_nothing_is_a_command_says_so_and_makes_nothing(
    tmp_path: Path, words: Sequence[str]
) -> None:
    nowhere = tmp_path / "nowhere"
    ran = run(*words, "--data-dir", nowhere)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"nabij: {nowhere}: no" in ran.stderr
    assert "--data-dir" in ran.stderr
    assert not nowhere.exists()


def test_an_empty_redis_is_not_said_to_hold_nothing_and_stays_empty(redis_url: str) -> None:
    for words in READING[:2]:
        ran = run(*words, NABIJ_REDIS_URL=redis_url)
        assert ran.returncode == 2
        assert "nothing of Nabij" in ran.stderr
    for words in (("doctor",), ("policy", "check")):
        assert run(*words, NABIJ_REDIS_URL=redis_url).returncode == 0
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_what_lies_in_a_directory_is_read_though_nothing_runs(tmp_path: Path) -> None:
    file = Path(__file__).parents[2] / "nabij" / "local" / "demo_zones.geojson"
    assert run("zones", "import", file, "--data-dir", tmp_path).returncode == 0
    assert json_of(run("dead-letters", "list", "--json", "--data-dir", tmp_path))["count"] == 0
    unknown = run("explain", "0d3ad8", "--data-dir", tmp_path)
    assert unknown.returncode == 1
    assert f"no incident 0d3ad8 is known in {tmp_path}; " in unknown.stderr
    assert "the id is another" in unknown.stderr  # before it, what runs elsewhere on this machine


@pytest.mark.parametrize("user", ["Ann.B", "", "a" * 41, "a/b"])
def test_explain_refuses_what_is_no_user_name(tmp_path: Path, user: str) -> None:
    ran = run("explain", "0d3ad8", user, "--data-dir", tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"{user!r} is no user name" in ran.stderr


def test_the_demo_that_runs_is_found_where_nothing_else_is(tmp_path: Path, redis_url: str) -> None:
    file = Path(__file__).parents[2] / "nabij" / "local" / "demo_zones.geojson"
    run("zones", "import", file, NABIJ_REDIS_URL=redis_url)
    folder = tmp_path / "nabij-demo"
    folder.mkdir(mode=0o700)
    where = {"TMPDIR": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "home")}
    with redis.Redis.from_url(redis_url) as client:
        pid = client.info("server")["process_id"]
    with DataDir(folder).announced(Running(pid=pid, redis_url=redis_url)):
        listed = run("zones", "list", "--json", **where)
        assert len(json.loads(listed.stdout)) == 6
        assert f"looking into what runs in {folder}" in listed.stderr
        elsewhere = run("zones", "list", "--data-dir", tmp_path / "nowhere", **where)
        assert elsewhere.returncode == 2
        assert f"a demo or replay runs in {folder}" in elsewhere.stderr


async def test_explain_finds_the_one_of_several_demos_that_has_the_incident(
    tmp_path: Path, redis_url: str
) -> None:
    where: dict[str, Any] = {"TMPDIR": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "home")}
    with redis.Redis.from_url(redis_url) as client:
        pid = client.info("server")["process_id"]
    parts = urlsplit(redis_url)
    urls = [parts._replace(path=f"/{number}").geturl() for number in (0, 1)]
    folders = [tmp_path / name for name in ("nabij-a", "nabij-b")]
    with contextlib.ExitStack() as announced:
        incidents = []
        for folder, url in zip(folders, urls, strict=True):
            folder.mkdir(mode=0o700)
            announced.enter_context(DataDir(folder).announced(Running(pid=pid, redis_url=url)))
            async with Store(url, routes=routes()) as store:
                incidents.append(await open_incident(store, report()))

        for folder, incident in zip(folders, incidents, strict=True):
            ran = run("explain", incident.id.hex[:12], "--json", **where)
            assert json.loads(ran.stdout)["incident"]["id"] == str(incident.id)
            assert f"found in what runs in {folder}" in ran.stderr
        ending = tmp_path / "nabij-c"
        ending.mkdir(mode=0o700)
        gone = Running(pid=pid, redis_url="redis://127.0.0.1:1")
        announced.enter_context(DataDir(ending).announced(gone))
        unknown = run("explain", "0d3ad8", **where)
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert f"{ending} (process {pid}): no Redis at 127.0.0.1:1" in unknown.stderr

        async with Store(urls[1], routes=routes()) as store:
            await commit(store, first := report(), replace(opened(first), id=incidents[0].id))
        both = run("explain", incidents[0].id.hex[:12], **where)
        assert both.returncode == 2
        for folder in folders:
            assert f"opened {START:%Y-%m-%d}" in both.stderr
            assert f"in {folder} (process {pid})" in both.stderr


async def test_explain_finds_the_demos_incident_behind_data_in_the_default_directory(
    tmp_path: Path, redis_url: str
) -> None:
    where: dict[str, Any] = {"TMPDIR": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "home")}
    default, demo = tmp_path / "home" / "nabij", tmp_path / "nabij-demo"
    file = Path(__file__).parents[2] / "nabij" / "local" / "demo_zones.geojson"
    run("zones", "import", file, **where)  # as a `nabij up` of some time leaves data there
    assert DataDir(default).holds_data
    with redis.Redis.from_url(redis_url) as client:
        pid = client.info("server")["process_id"]
    demo.mkdir(mode=0o700)
    with DataDir(demo).announced(Running(pid=pid, redis_url=redis_url)):
        async with Store(redis_url, routes=routes()) as store:
            incident = await open_incident(store, report())

        ran = run("explain", incident.id.hex[:6], "--json", **where)
        assert json.loads(ran.stdout)["incident"]["id"] == str(incident.id), ran.stderr
        assert f"found in what runs in {demo}" in ran.stderr

        unknown = run("explain", "0d3ad8", **where)
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert f"no incident 0d3ad8 is known in {default}, {demo} (process {pid})" in unknown.stderr

        chosen = run("explain", incident.id.hex[:6], "--data-dir", default, **where)
        assert chosen.returncode == 0  # it is the default all the same
        other = tmp_path / "other"
        run("zones", "import", file, "--data-dir", other, **where)
        elsewhere = run("explain", incident.id.hex[:6], "--data-dir", other, **where)
        assert (elsewhere.returncode, elsewhere.stdout) == (1, "")
        assert f"is known in {other}; a demo or replay runs in {demo}" in elsewhere.stderr
        assert f"--data-dir {demo}" in elsewhere.stderr
