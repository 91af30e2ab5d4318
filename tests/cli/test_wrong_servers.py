"""A command that meets a wrong server names it, the setting that led there, and how to mend it."""

import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from broker.store import DeadLetter, open_partitions
from nabij.local.embedded import Account, EmbeddedMqtt
from schemas.ids import new_id
from tests.cli.test_commands import run
from tests.core.samples import START

READING = (("explain", "0d3ad8"), ("dead-letters", "list"), ("zones", "list"), ("doctor",))
TO_MQTT = (("tail",), ("dead-letters", "replay", "--all"), ("doctor",))


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nothing answers while the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
async def redis_with_a_letter(redis_url: str) -> str:
    async with open_partitions(redis_url, 1) as stores:
        await stores[0].dead_letters.keep(
            DeadLetter(
                id=new_id(),
                at=START,
                service="intake",
                topic="nabij/v1/u/ann/up/report",
                payload=b"{}",
                code="internal",
                field="",
                reason="",
            )
        )
    return redis_url


def said(words: Sequence[str], **settings: str) -> str:
    ran = run(*words, NABIJ_SHARE_GROUP="x", **settings)
    assert ran.returncode == 1, ran.stderr
    return ran.stdout + ran.stderr


@pytest.mark.parametrize("words", READING, ids=lambda words: words[0])
def test_a_redis_that_wants_another_password_is_named_with_the_setting(
    redis_url: str, words: Sequence[str]
) -> None:
    host = f"127.0.0.1:{urlsplit(redis_url).port}"
    without = said(words, NABIJ_REDIS_URL=f"redis://{host}/0")
    assert f"Redis wants a password (Redis at {host}: NOAUTH" in without
    assert "put it in NABIJ_REDIS_URL" in without
    wrong = said(words, NABIJ_REDIS_URL=f"redis://:wrong-one@{host}/0")
    assert f"Redis refuses the password (Redis at {host}: WRONGPASS" in wrong
    assert "mend the password in NABIJ_REDIS_URL" in wrong
    assert "wrong-one" not in wrong


@pytest.mark.parametrize("words", [*READING, ("up",)], ids=lambda words: words[0])
def test_where_no_redis_is_the_setting_is_named(
    closed_port: int, tmp_path: Path, words: Sequence[str]
) -> None:
    here = ("--data-dir", str(tmp_path))
    told = said([*words, *here], NABIJ_REDIS_URL=f"redis://127.0.0.1:{closed_port}/0")
    assert f"no Redis at 127.0.0.1:{closed_port}: " in told
    assert "start Redis, or mend NABIJ_REDIS_URL" in told
    assert "come back" not in told


def test_another_server_than_redis_is_named_with_the_setting(mqtt_server: EmbeddedMqtt) -> None:
    host = f"127.0.0.1:{mqtt_server.port}"
    told = said(("explain", "0d3ad8"), NABIJ_REDIS_URL=f"redis://{host}/0")
    assert f"Redis at {host}: the connection broke" in told
    assert "mend NABIJ_REDIS_URL" in told


@pytest.mark.parametrize("words", TO_MQTT, ids=lambda words: words[0])
def test_a_refused_account_is_named_with_the_setting(
    mqtt_server: EmbeddedMqtt,
    accounts: dict[str, Account],
    redis_with_a_letter: str,
    words: Sequence[str],
) -> None:
    url = mqtt_server.url_for(replace(accounts["nabij"], password="not-its-own"))
    told = said(words, NABIJ_MQTT_URL=url, NABIJ_REDIS_URL=redis_with_a_letter)
    assert f"the MQTT account 'nabij' is refused (127.0.0.1:{mqtt_server.port}: " in told
    assert "check its name, and its password in NABIJ_MQTT_URL" in told
    assert "not-its-own" not in told


@pytest.mark.parametrize("words", TO_MQTT, ids=lambda words: words[0])
def test_where_no_mqtt_broker_is_the_setting_is_named(
    closed_port: int, redis_with_a_letter: str, words: Sequence[str]
) -> None:
    url = f"mqtt://nabij:secret-one@127.0.0.1:{closed_port}"
    told = said(words, NABIJ_MQTT_URL=url, NABIJ_REDIS_URL=redis_with_a_letter)
    assert f"no MQTT broker at 127.0.0.1:{closed_port}: " in told
    assert "start it, or mend NABIJ_MQTT_URL" in told
    assert "secret-one" not in told
