"""The services over TLS, with the certificates and the lines of the operations page."""

import asyncio
import os
import re
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from broker.errors import UnavailableError
from broker.mqtt import Endpoint
from broker.store import open_partitions
from nabij.local.embedded import Account, EmbeddedMqtt, EmbeddedRedis, MqttEngine, RedisEngine
from nabij.local.managed_process import free_port, write_private
from tests.services.system import Servers, running

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
CHAPTER = PAGE.partition("\n## TLS\n")[2].partition("\n## ")[0]
[COMMANDS] = re.findall(r"^```sh\n(.*?)^```", CHAPTER, re.DOTALL | re.MULTILINE)
MOSQUITTO, REDIS = re.findall(r"^```conf\n(.*?)^```", CHAPTER, re.DOTALL | re.MULTILINE)
FILES = re.compile(r"\b(?:ca|server)\.(?:crt|key)")


def lines(documented: str, certificates: Path, port: int) -> str:
    """The documented lines, with this test's files and port."""
    absolute = FILES.sub(lambda name: str(certificates / name[0]), documented)
    return re.sub(r"\b(8883|6380)$", str(port), absolute, flags=re.MULTILINE)


def add(more: str, config: Path) -> None:
    write_private(config, f"{config.read_text()}\n{more}")


class TlsMqtt(EmbeddedMqtt):
    certificates: Path
    tls_port: int

    def _command(self) -> list[str]:
        command = super()._command()
        add(lines(MOSQUITTO, self.certificates, self.tls_port), self.directory / "mosquitto.conf")
        return command


class TlsRedis(EmbeddedRedis):
    certificates: Path
    tls_port: int

    def _command(self) -> list[str]:
        command = super()._command()
        add(lines(REDIS, self.certificates, self.tls_port), self.directory / "redis.conf")
        return command


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory, program: Callable[..., str]) -> Path:
    program("openssl")
    directory = tmp_path_factory.mktemp("certificates")
    subprocess.run(["bash", "-euc", COMMANDS], cwd=directory, check=True, capture_output=True)
    return directory


@pytest.fixture
def tls_servers(
    certificates: Path, tmp_path: Path, accounts: dict[str, Account], program: Callable[..., str]
) -> Iterator[Servers]:
    program("mosquitto")
    program("redis-server", "valkey-server")
    mqtt = TlsMqtt(tmp_path, list(accounts.values()), engine=MqttEngine.MOSQUITTO)
    redis = TlsRedis(tmp_path, engine=RedisEngine.REDIS)
    for server in (mqtt, redis):
        server.certificates, server.tls_port = certificates, free_port()
    try:
        mqtt.start()
        redis.start()
        yield Servers(
            mqtt=mqtt,
            redis_url=over_tls(redis.url, redis),
            mqtt_url=over_tls(mqtt.url_for(accounts["nabij"]), mqtt),
            accounts=accounts,
            directory=tmp_path,
        )
    finally:
        mqtt.stop()
        redis.stop()


def over_tls(url: str, server: TlsMqtt | TlsRedis) -> str:
    return url.replace("://", "s://", 1).replace(f":{server.port}", f":{server.tls_port}")


async def test_a_report_is_handled_over_mqtts_and_rediss(
    tls_servers: Servers, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.crt"))
    assert str(tls_servers.mqtt_url).startswith("mqtts://")
    assert tls_servers.redis_url.startswith("rediss://")

    async with running(tls_servers) as system:
        ann = await system.connect("ann")
        assert (await system.report(ann, system.place()))["outcome"] == "accepted"


async def test_a_certificate_of_an_unknown_ca_is_refused(tls_servers: Servers) -> None:
    with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        async with open_partitions(tls_servers.redis_url):
            pass
    endpoint = Endpoint.from_url(str(tls_servers.mqtt_url))
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection(endpoint.host, endpoint.port, ssl=endpoint.tls)


async def test_a_redis_that_listens_with_tls_alone_is_backed_up(  # noqa: PLR0917 - fixtures
    tls_servers: Servers,
    certificates: Path,
    tmp_path: Path,
    program: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.crt"))
    program("redis-cli", "valkey-cli")
    program("redis-server", "valkey-server")
    async with open_partitions(tls_servers.redis_url):  # it writes the version of the schema
        pass
    url = urlsplit(tls_servers.redis_url)
    process = await asyncio.create_subprocess_exec(
        "bash",
        str(REPOSITORY / "ops" / "backup.sh"),
        str(tmp_path / "backups"),
        env={
            **os.environ,
            "REDIS_PORT": str(url.port),
            "REDISCLI_AUTH": str(url.password),
            "REDIS_CA": str(certificates / "ca.crt"),
        },
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    assert list(map(str, Path(printed.decode().strip()).glob("appendonlydir/*.base.*")))  # noqa: ASYNC240
