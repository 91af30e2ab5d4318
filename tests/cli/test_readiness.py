"""/readyz follows what works now: Redis, the MQTT broker, the account, hung workers, the disk."""

import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog

from nabij.local import supervisor
from nabij.local.embedded import Account, EmbeddedMqtt, EmbeddedRedis
from nabij.local.readiness import readiness
from tests.cli.up_process import Up, get, until

CITY = ("--service", "city")
AT_ONCE_S = 10.0  # «within a few seconds», on a machine with other work


def settings(mqtt: EmbeddedMqtt, account: Account, redis_url: str, **more: str) -> dict[str, str]:
    return {
        "NABIJ_MQTT_URL": mqtt.url_for(account),
        "NABIJ_REDIS_URL": redis_url,
        "NABIJ_SHARE_GROUP": "test-of-readiness",
        "NABIJ_INSTANCE": "test-of-readiness",
        **more,
    }


def answer(said: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    status, body = get(f"{said['http']}/readyz")
    return status, json.loads(body)


def codes(said: dict[str, Any]) -> set[str]:
    return {why["code"] for why in answer(said)[1]["why"]}


def becomes(said: dict[str, Any], status: int, *some: str) -> float:
    """Wait for this answer; return how long it took."""
    began = time.monotonic()
    until(lambda: answer(said)[0] == status and codes(said) >= {*some})
    return time.monotonic() - began


async def test_unready_while_redis_or_the_mqtt_broker_is_away_and_ready_again_when_back(
    start: Callable[..., Up],
    own_mqtt: EmbeddedMqtt,
    own_redis: EmbeddedRedis,
    accounts: dict[str, Account],
) -> None:
    up = start(*CITY, **settings(own_mqtt, accounts["nabij"], own_redis.url))
    said = up.ready()
    assert answer(said) == (
        200,
        {
            "ready": True,
            "degraded": False,
            "unsafe_redis": False,
            "why": [],
            "workers": {"city-1": "ready"},
        },
    )
    await own_redis.kill()
    assert becomes(said, 503, "redis_down") < AT_ONCE_S
    [why] = answer(said)[1]["why"]
    assert why["workers"] == ["city-1"]
    assert "NABIJ_REDIS_URL" in why["mend"]
    await own_redis.restart()
    assert becomes(said, 200) < AT_ONCE_S

    await own_mqtt.kill()
    assert becomes(said, 503, "mqtt_down") < AT_ONCE_S
    await own_mqtt.restart()
    assert becomes(said, 200) < AT_ONCE_S

    # Stopped, it neither answers nor closes the connection.
    os.kill(own_redis.pid, signal.SIGSTOP)
    assert becomes(said, 503, "redis_down") < AT_ONCE_S
    os.kill(own_redis.pid, signal.SIGCONT)
    assert becomes(said, 200) < AT_ONCE_S
    os.kill(own_mqtt.pid, signal.SIGSTOP)
    assert becomes(said, 503, "mqtt_deaf") < AT_ONCE_S
    os.kill(own_mqtt.pid, signal.SIGCONT)
    assert becomes(said, 200) < AT_ONCE_S

    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("appendonly", "no")
        assert becomes(said, 503, "unsafe_redis") < AT_ONCE_S
        assert answer(said)[1]["unsafe_redis"] is True
        client.config_set("appendonly", "yes")
        assert becomes(said, 200) < AT_ONCE_S
        client.config_set("maxmemory", "1mb")
        assert becomes(said, 503, "redis_out_of_memory") < AT_ONCE_S
        client.config_set("maxmemory", "0")
        assert becomes(said, 200) < AT_ONCE_S
    assert up.end() == 0


def test_an_account_that_may_not_publish_is_never_ready_and_is_named(
    start: Callable[..., Up],
    mqtt_server: EmbeddedMqtt,
    redis_url: str,
    accounts: dict[str, Account],
) -> None:
    up = start(*CITY, "--within", "25", **settings(mqtt_server, accounts["ann"], redis_url))
    assert up.process.wait(60) == 1
    assert up.process.stderr
    told = up.process.stderr.read()
    # It may not publish a probe or subscribe; or (our own broker) its last will is refused.
    assert re.search(r"the MQTT account 'ann' (may not|is refused \(.*NOT_AUTHORIZED\)) ?", told)
    assert "topic readwrite nabij/v1/#" in told
    assert "test-of-readiness/" not in told  # the share group


def test_a_wrong_password_of_the_services_is_told_with_account_and_host(
    start: Callable[..., Up],
    mqtt_server: EmbeddedMqtt,
    redis_url: str,
    accounts: dict[str, Account],
) -> None:
    wrong = replace(accounts["nabij"], password="not-its-own")
    more = ("--workers", "city=2", "--within", "15")
    up = start(*CITY, *more, **settings(mqtt_server, wrong, redis_url))
    assert up.process.wait(60) == 1
    assert up.process.stderr
    told = up.process.stderr.read()
    host = f"127.0.0.1:{mqtt_server.port}"
    [last] = [line for line in told.splitlines() if "nabij: not ready after" in line]
    assert f"the MQTT account 'nabij' is refused ({host}: " in last
    assert last.count("is refused") == 1
    assert "password" in told
    assert "may not read or write" not in told
    assert "not-its-own" not in told


@pytest.fixture
async def unsafe_redis(data_dir: Path) -> AsyncIterator[str]:
    async with EmbeddedRedis(data_dir) as server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("appendfsync", "everysec")
        yield server.url


def test_a_redis_that_may_lose_receipts_is_refused_unless_that_is_accepted_and_then_said(
    start: Callable[..., Up],
    mqtt_server: EmbeddedMqtt,
    accounts: dict[str, Account],
    unsafe_redis: str,
) -> None:
    on = settings(mqtt_server, accounts["nabij"], unsafe_redis)
    refused = start(*CITY, **on)
    assert refused.process.wait(60) == 2
    assert refused.process.stderr
    told = refused.process.stderr.read()
    assert "Redis has appendfsync everysec" in told
    assert "NABIJ_UNSAFE_REDIS=1" in told

    up = start(*CITY, **on, NABIJ_UNSAFE_REDIS="1")
    said = up.ready()
    assert "appendfsync everysec" in said["warnings"][0]
    status, body = answer(said)
    assert (status, body["ready"], body["degraded"], body["unsafe_redis"]) == (
        200,
        True,
        True,
        True,
    )
    assert "nabij_redis_unsafe 1.0" in get(f"{said['http']}/metrics")[1]
    assert up.end() == 0
    assert up.process.stderr
    assert "appendfsync everysec" in up.process.stderr.read()


async def test_a_hung_worker_is_restarted_with_its_stack_in_the_log(
    monkeypatch: pytest.MonkeyPatch,
    mqtt_server: EmbeddedMqtt,
    redis_url: str,
    accounts: dict[str, Account],
) -> None:
    environment = {**os.environ, **settings(mqtt_server, accounts["nabij"], redis_url)}
    with structlog.testing.capture_logs() as logs:
        async with supervisor.Supervisor({"city": 1}, environment) as running:
            await running.wait_ready(45)
            [worker] = running.workers
            assert worker.pid
            with monkeypatch.context() as impatient:  # but not while a worker starts
                for name, value in (("TICK_S", 0.5), ("MISSED_BEATS", 4), ("HUNG_BEATS", 5)):
                    impatient.setattr(supervisor, name, value)
                os.kill(worker.pid, signal.SIGSTOP)
                await running._until(lambda: worker.restarts == 1)
            await running.wait_ready(45)
            assert readiness(running.workers).ready
    [killed, *_] = [line for line in logs if line["event"] == "a worker hangs and is killed"]
    assert killed["worker"] == "city-1"
    assert any("nabij/local/worker_process.py" in frame for frame in killed["stack"])


def test_one_of_several_workers_that_is_away_degrades_and_does_not_stop(
    start: Callable[..., Up],
    mqtt_server: EmbeddedMqtt,
    redis_url: str,
    accounts: dict[str, Account],
) -> None:
    on = settings(mqtt_server, accounts["nabij"], redis_url)
    up = start(*CITY, "--workers", "city=2", **on)
    said = up.ready()
    [first, second] = [pid for pid, command in up.descendants().items() if "city" in command]
    os.kill(first, signal.SIGSTOP)
    until(lambda: answer(said)[1]["degraded"])
    assert answer(said)[0] == 200
    os.kill(second, signal.SIGSTOP)
    assert becomes(said, 503, "worker_hung") < AT_ONCE_S
    for pid in (first, second):
        os.kill(pid, signal.SIGCONT)
    becomes(said, 200)
    assert up.end() == 0
