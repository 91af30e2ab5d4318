"""`nabij up` as a real tree of processes: it starts, survives, drains and leaves nothing behind."""

import json
import os
import signal
import time
from collections.abc import Callable

import pytest
import redis

from nabij.local.embedded import Account, EmbeddedMqtt
from tests.cli.up_process import PATIENCE_S, SOME, Up, get, processes, until


def test_whole_life_of_up(start: Callable[..., Up]) -> None:
    up = start(*SOME)
    said = up.ready()
    assert said["services"] == ["intake-1", "presence-1"]
    assert get(f"{said['http']}/readyz")[0] == 200
    assert get(f"{said['http']}/livez")[0] == 200
    before = up.workers()

    os.kill(before["intake"], signal.SIGKILL)
    until(lambda: up.workers().get("intake", before["intake"]) != before["intake"])
    until(lambda: get(f"{said['http']}/readyz")[0] == 200)
    after = up.workers()
    assert after["presence"] == before["presence"]
    metrics = get(f"{said['http']}/metrics")[1]
    assert 'nabij_worker_restarts_total{worker="intake-1"} 1.0' in metrics
    assert 'nabij_worker_restarts_total{worker="presence-1"} 0.0' in metrics
    assert 'nabij_worker_ready{worker="intake-1"} 1.0' in metrics

    everybody = up.descendants()
    assert len(everybody) == 4  # two workers, an MQTT broker, a Redis
    assert up.end() == 0
    assert not everybody.keys() & processes().keys()
    assert not (up.data_dir / "running.json").exists()


def test_worker_that_is_away_makes_it_unready_and_is_named(start: Callable[..., Up]) -> None:
    up = start(*SOME)
    said = up.ready()
    os.kill(up.workers()["presence"], signal.SIGSTOP)
    os.kill(up.workers()["intake"], signal.SIGKILL)
    until(lambda: get(f"{said['http']}/readyz")[0] == 503)
    assert "intake-1" in get(f"{said['http']}/readyz")[1]
    until(lambda: get(f"{said['http']}/livez")[0] == 503)
    assert json.loads(get(f"{said['http']}/livez")[1])["hung"] == ["presence-1"]
    os.kill(up.workers()["presence"], signal.SIGCONT)
    until(lambda: get(f"{said['http']}/livez")[0] == 200)
    assert up.end(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("engine", "said"),
    [("auto", "started Nabij's own MQTT broker"), ("mosquitto", "started mosquitto ")],
)
def test_the_chosen_mqtt_broker_is_named_and_all_ends_with_a_supervisor_that_is_killed(
    engine: str, said: str, start: Callable[..., Up], program: Callable[..., str]
) -> None:
    if engine == "mosquitto":
        program("mosquitto")
    up = start(*SOME, NABIJ_MQTT=engine)
    up.ready()
    everybody = up.descendants()
    assert len(everybody) == 4
    up.end(signal.SIGKILL)
    until(lambda: not everybody.keys() & processes().keys())
    assert up.process.stderr
    assert said in up.process.stderr.read()


def test_second_up_on_one_data_directory_is_refused(start: Callable[..., Up]) -> None:
    first = start(*SOME)
    first.ready()
    second = start(*SOME)
    assert second.process.wait(PATIENCE_S) == 2
    assert second.process.stderr
    said = second.process.stderr.read()
    assert f"another nabij (process {first.process.pid}) runs in {first.data_dir}" in said
    assert first.process.poll() is None
    assert first.end() == 0


def test_accounts_and_secrets_are_made_once_and_private(start: Callable[..., Up]) -> None:
    first = start(*SOME)
    accounts = first.ready()["accounts"]
    for user in ("ann", "eva", "desk-gent", "desk-maaseik", "desk-unassigned", "city-desk"):
        assert accounts[user]
    secret = (first.data_dir / "share-group").read_text()
    assert first.end() == 0
    for name in (
        "accounts.json",
        "share-group",
        "clients/ann/mosquitto_pub",
        "clients/ann/password",
    ):
        assert (first.data_dir / name).stat().st_mode & 0o777 == 0o600
    again = start(*SOME)
    assert again.ready()["accounts"] == accounts
    assert (first.data_dir / "share-group").read_text() == secret
    assert again.end() == 0


def test_embedded_redis_that_is_killed_comes_back_with_its_data(start: Callable[..., Up]) -> None:
    up = start(*SOME)
    said = up.ready()
    url = json.loads((up.data_dir / "running.json").read_text())["redis_url"]

    def kept() -> bool:
        try:
            with redis.Redis.from_url(url) as client:
                return bool(client.get("kept") == b"yes")
        except redis.RedisError:
            return False

    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
    server = next(p for p, c in up.descendants().items() if "redis" in c[0] or "valkey" in c[0])
    os.kill(server, signal.SIGKILL)
    until(lambda: server not in up.descendants() and kept())
    until(lambda: get(f"{said['http']}/readyz")[0] == 200)
    assert up.end() == 0


def test_servers_of_ones_own_are_used_and_left_running(
    start: Callable[..., Up],
    mqtt_server: EmbeddedMqtt,
    redis_url: str,
    accounts: dict[str, Account],
) -> None:
    settings = {
        "NABIJ_MQTT_URL": mqtt_server.url_for(accounts["nabij"]),
        "NABIJ_REDIS_URL": redis_url,
        "NABIJ_SHARE_GROUP": "test-of-up",
        "NABIJ_INSTANCE": "test-of-up",
    }
    up = start(*SOME, "--workers", "intake=2", **settings)
    said = up.ready()
    assert said["services"] == ["intake-1", "intake-2", "presence-1"]
    assert said["accounts"] == {}
    assert len(up.descendants()) == 3
    beside = start("--service", "city", **settings)
    beside.ready()
    twice = start("--service", "presence", **settings)
    assert twice.process.wait(PATIENCE_S) == 2
    assert beside.end() == 0
    assert up.end() == 0
    assert mqtt_server.running
    assert redis.Redis.from_url(redis_url).ping()


def test_a_redis_that_does_not_answer_is_told_at_once(start: Callable[..., Up]) -> None:
    up = start(NABIJ_REDIS_URL="redis://127.0.0.1:9")
    assert up.process.stderr
    began_s = time.monotonic()
    said = next(line for line in up.process.stderr if "Redis" in line)
    assert "waiting up to 15 s for Redis: no Redis at 127.0.0.1:9" in said
    assert time.monotonic() - began_s < 10
    up.end()


def test_worker_without_its_mqtt_broker_is_a_failure_in_words(
    start: Callable[..., Up], redis_url: str
) -> None:
    up = start(
        "--service",
        "city",
        "--within",
        "8",
        NABIJ_MQTT_URL="mqtt://nabij:wrong@127.0.0.1:9",
        NABIJ_REDIS_URL=redis_url,
        NABIJ_SHARE_GROUP="x",
    )
    assert up.process.wait(60) == 1
    assert up.process.stderr
    said = up.process.stderr.read()
    last = said.splitlines()[-1]
    assert "nabij: not ready after 8 s: city-1 is" in last
    assert "MQTT broker at 127.0.0.1:9" in last  # that there is none, or no connection to it
    assert "Traceback" not in said
    assert "wrong" not in said
