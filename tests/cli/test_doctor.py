"""`nabij doctor` tries the MQTT broker out as the services, a stranger and a participant; and Redis."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from broker.core.zones import Zone, ZoneKind
from broker.mqtt import Endpoint
from broker.store import SCHEMA_VERSION, Alarm, Reader
from broker.store.kernel.keys import Keys
from nabij.doctor import DeskSilence, desk_findings
from nabij.doctor_finding import CheckResult
from nabij.local.access import as_participant
from nabij.local.data_directory import DataDir, Running
from nabij.local.embedded import (
    Account,
    EmbeddedMqtt,
    EmbeddedRedis,
    MqttEngine,
    mosquitto_config,
    replace_options,
)
from schemas.taxonomy import Desk
from schemas.topics import ROOT


def doctor(*words: str, **settings: str) -> dict[str, Any]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("NABIJ_")}
    ran = subprocess.run(
        [sys.executable, "-m", "nabij.cli", "doctor", "--json", *words],
        env={**kept, "NABIJ_SHARE_GROUP": "x", **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found: dict[str, Any] = json.loads(ran.stdout)
    assert ran.returncode == (0 if found["ok"] else 1), ran.stderr
    assert "secret-of-ann" not in ran.stdout
    return found


def told(found: dict[str, Any], verdict: str) -> str:
    return "\n".join(
        f"{one['what']}: {one['found']}" for one in found["findings"] if one["verdict"] == verdict
    )


def setting(found: dict[str, Any], name: str) -> str:
    [value] = [one["value"] for one in found["settings"] if one["name"] == name]
    return str(value)


class OddMqtt(EmbeddedMqtt):
    """Mosquitto with some options of its configuration replaced or (None) left out."""

    def __init__(self, directory: Path, accounts: list[Account], **options: str | None) -> None:
        super().__init__(directory, accounts, engine=MqttEngine.MOSQUITTO)
        self._options = options

    def _command(self) -> list[str]:
        command = super()._command()
        config = mosquitto_config(self.directory, self.port)
        for name, value in self._options.items():
            if value is None:
                lines = config.splitlines()
                config = "\n".join(line for line in lines if not line.startswith(name))
            else:
                config = replace_options(config, {name: value})
        (self.directory / "mosquitto.conf").write_text(config)
        return command


@pytest.fixture
async def odd_mqtt(
    data_dir: Path,
    accounts: dict[str, Account],
    program: Callable[..., str],
    request: pytest.FixtureRequest,
) -> AsyncIterator[EmbeddedMqtt]:
    program("mosquitto")
    async with OddMqtt(data_dir, list(accounts.values()), **request.param) as server:
        yield server


def as_ann(mqtt: EmbeddedMqtt, accounts: dict[str, Account], user: str = "nabij") -> dict[str, str]:
    return {
        "NABIJ_MQTT_URL": mqtt.url_for(accounts[user]),
        "NABIJ_DEVICE_PASSWORD": accounts["ann"].password,
    }


def test_a_sound_mqtt_broker_is_tried_as_all_three(
    mqtt_server: EmbeddedMqtt, accounts: dict[str, Account], redis_url: str
) -> None:
    found = doctor("--as", "ann", NABIJ_REDIS_URL=redis_url, **as_ann(mqtt_server, accounts))
    assert found["ok"], told(found, "broken")
    assert "ann reads and writes its own topics and no others" in told(found, "ok")
    assert "nabij publishes and receives" in told(found, "ok")


def test_an_account_that_is_not_the_services_is_named_with_what_mends_it(
    mqtt_server: EmbeddedMqtt, accounts: dict[str, Account]
) -> None:
    broken = told(doctor(**as_ann(mqtt_server, accounts, "bob")), "broken")
    assert "the account 'bob' may not publish on nabij/v1/ops" in broken
    assert "`topic readwrite nabij/v1/#`" in broken


def test_a_refused_participant_is_named_and_what_was_found_before_is_kept(
    mqtt_server: EmbeddedMqtt, accounts: dict[str, Account]
) -> None:
    wrong = as_ann(mqtt_server, accounts) | {"NABIJ_DEVICE_PASSWORD": "not-its-own"}
    found = doctor("--as", "bob", **wrong)
    assert f"MQTT broker: 127.0.0.1:{mqtt_server.port} answers" in told(found, "ok")
    assert "nabij publishes and receives" in told(found, "ok")
    broken = told(found, "broken")
    assert "a participant's account: the MQTT account 'bob' is refused" in broken
    assert "password in NABIJ_DEVICE_PASSWORD" in broken


def test_a_refused_account_of_the_services_is_named(
    mqtt_server: EmbeddedMqtt, accounts: dict[str, Account]
) -> None:
    wrong = replace(accounts["nabij"], password="not-its-own")
    broken = told(doctor(NABIJ_MQTT_URL=mqtt_server.url_for(wrong)), "broken")
    assert "the services' account: the MQTT account 'nabij' is refused" in broken
    assert "password in NABIJ_MQTT_URL" in broken


def test_a_participant_without_an_account_in_the_directory_is_broken_and_named(
    mqtt_server: EmbeddedMqtt, accounts: dict[str, Account], tmp_path: Path
) -> None:
    (tmp_path / "accounts.json").write_text(json.dumps({"ann": accounts["ann"].password}))
    here = ("--data-dir", str(tmp_path))
    missing = f"there is no account 'nobody' in {tmp_path}. It has: ann"
    assert missing in told(doctor("--as", "nobody", *here), "broken")  # nothing runs there
    running = Running(pid=os.getpid(), mqtt_url=mqtt_server.url_for(accounts["nabij"]))
    with DataDir(tmp_path).announced(running):
        found = doctor("--as", "nobody", *here)
        assert missing in told(found, "broken")
        assert "`nabij doctor --as USER`" not in told(found, "note")
        known = doctor("--as", "ann", *here)
        assert "ann reads and writes its own topics and no others" in told(known, "ok")


def test_a_participant_who_cannot_be_tried_is_broken_with_the_reason(
    mqtt_server: EmbeddedMqtt, accounts: dict[str, Account], tmp_path: Path
) -> None:
    without = doctor("--as", "ann", NABIJ_MQTT_URL=mqtt_server.url_for(accounts["nabij"]))
    assert "'ann' is not tried: set NABIJ_DEVICE_PASSWORD" in told(without, "broken")
    alone = doctor("--as", "ann", "--data-dir", str(tmp_path), NABIJ_DEVICE_PASSWORD="known")
    assert "'ann' is not tried: no MQTT broker runs. Start `nabij up`" in told(alone, "broken")


@pytest.mark.parametrize("odd_mqtt", [{"allow_anonymous": "true"}], indirect=True)
def test_an_mqtt_broker_that_lets_anybody_in_is_broken(
    odd_mqtt: EmbeddedMqtt, accounts: dict[str, Account]
) -> None:
    broken = told(doctor("--as", "ann", **as_ann(odd_mqtt, accounts)), "broken")
    assert "without an account" in broken
    assert "`allow_anonymous false`" in broken
    assert "may read" not in broken


@pytest.mark.parametrize("odd_mqtt", [{"acl_file": None}], indirect=True)
def test_an_mqtt_broker_without_an_acl_is_broken_and_seen_with_the_services_account_alone(
    odd_mqtt: EmbeddedMqtt, accounts: dict[str, Account]
) -> None:
    broken = told(doctor("--as", "ann", **as_ann(odd_mqtt, accounts)), "broken")
    assert "the participant 'ann' may read what is of others" in broken
    assert "the participant 'ann' may write what is of others" in broken
    assert "mosquitto.acl" in broken
    alone = as_ann(odd_mqtt, accounts)
    del alone["NABIJ_DEVICE_PASSWORD"]
    assert "no access control by topic is in force" in told(doctor(**alone), "broken")


@pytest.mark.parametrize("odd_mqtt", [{}], indirect=True)
async def test_a_right_of_participants_that_an_older_acl_lacks_is_told(
    odd_mqtt: EmbeddedMqtt, accounts: dict[str, Account]
) -> None:
    services, ann = (
        Endpoint.from_url(odd_mqtt.url_for(accounts[user])) for user in ("nabij", "ann")
    )
    assert await as_participant(services, ann) == []
    right = f"pattern write {ROOT}/u/%u/up/#\n"
    acl = odd_mqtt.directory / "acl"
    lines = acl.read_text()
    assert right in lines
    acl.write_text(lines.replace(right, ""))
    os.kill(odd_mqtt.pid, signal.SIGHUP)  # read before the next connection is

    [cause] = await as_participant(services, ann)

    assert cause.what == f"the participant 'ann' cannot write {ROOT}/u/ann/up/probe"
    assert right.strip() in cause.mend


def test_where_devices_outside_connect_is_told_and_a_certificate_that_is_none(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.pem").touch()
    url, file = "mqtts://0.0.0.0:8883", str(tmp_path / "a.pem")
    files = {"NABIJ_MQTT_CERTIFICATE": file, "NABIJ_MQTT_KEY": file}

    with DataDir(tmp_path).announced(Running(pid=os.getpid(), mqtt_listen=url)):
        found = doctor("--data-dir", str(tmp_path), NABIJ_MQTT_LISTEN=url, **files)

    assert f"(process {os.getpid()}), and MQTT listens at {url}" in told(found, "ok")
    assert f"NABIJ_MQTT_CERTIFICATE={file}: has no certificate (PEM)" in told(found, "broken")


def test_redis_settings_are_broken_and_a_note_once_accepted(own_redis: EmbeddedRedis) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("appendonly", "no")
        on = {"NABIJ_REDIS_URL": own_redis.url}
        refused = doctor(**on)
        assert "appendonly no" in told(refused, "broken")
        assert "or accept the loss with NABIJ_UNSAFE_REDIS=1" in told(refused, "broken")
        assert setting(refused, "NABIJ_UNSAFE_REDIS") == "0"
        accepted = doctor(**on, NABIJ_UNSAFE_REDIS="1")
        assert "accepted by NABIJ_UNSAFE_REDIS=1" in told(accepted, "note")
        assert "or accept the loss" not in told(accepted, "note")
        assert setting(accepted, "NABIJ_UNSAFE_REDIS") == "1"
        client.set(Keys().sequence, 1)  # a report was committed here, before versions were recorded
        older = told(doctor(**on, NABIJ_UNSAFE_REDIS="1"), "note")
        assert f"version 1: the next `nabij up` migrates it to {SCHEMA_VERSION}" in older
        client.config_set("maxmemory", "1mb")
        assert "maxmemory" in told(doctor(**on, NABIJ_UNSAFE_REDIS="1"), "broken")


def zone(identifier: str) -> Zone:
    return Zone(identifier, identifier.title(), ZoneKind.POLICE, ())


def test_zones_without_a_desk_are_listed_and_a_desk_that_takes_nothing_is_broken() -> None:
    """The real zones: Ghent is `ipz93`, where the ACL that is shipped knows `gent`."""
    gent, kortrijk = Reader(Desk.POLICE, "gent"), Reader(Desk.POLICE, "ipz-kortrijk")
    now_ms = 10_000_000
    desks = DeskSilence(
        {gent: now_ms - 60_000, kortrijk: now_ms - 3_600_000},
        {Reader(Desk.POLICE, "ipz93"): Alarm(now_ms - 42_000, now_ms)},
        now_ms,
    )
    zones = [zone(name) for name in ("gent", "ipz-kortrijk", "ipz93")]

    broken, note = desk_findings(zones, desks)

    assert broken.verdict is CheckResult.BROKEN
    assert "police/ipz93 has taken nothing" in broken.found
    assert "42 s" in broken.found
    assert "connected must confirm by id on nabij/v1/police/ipz93/up/receipt" in broken.found
    assert note.verdict is CheckResult.NOTE
    assert note.found.endswith(": police/ipz-kortrijk, police/ipz93, police/unassigned")


def test_hundreds_of_zones_without_a_desk_are_told_in_one_line() -> None:
    [note] = desk_findings(
        [zone(f"zone-{number}") for number in range(107)], DeskSilence({}, {}, 10_000_000)
    )

    assert note.found.endswith(" and 88 more")
    assert len(note.found) < 500
