"""`nabij replay`: a real stream of reports against the whole broker, judged by the oracle."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from broker.core.zones import UNASSIGNED, Area, Zone
from broker.errors import ConfigError, UnavailableError
from broker.hosts import each_url
from broker.runtime.config import Settings
from broker.store import Opening, open_partitions
from devices.device_connection import Broker, BrokerUnreachable, ConnectionRefused
from nabij.local.data_directory import CITY_DESK, OPERATOR
from nabij.local.mqtt_listeners import without_listeners
from nabij.local.policy_file import policy_text
from nabij.local.stack import Stack
from nabij.local.zone_files import DEMO_ZONES, covered, read_areas
from nabij.output import Progress, print_json, print_line, say
from schemas.messages import Position
from verify.datasets.report_stream import Stream, StreamError
from verify.replay.replay import Replay, ReplayLogin, ReplayProgress
from verify.replay.replay_desk import Login
from verify.replay.replay_plan import LONGEST_PAUSE_S, ReplayPlan, Verify
from verify.replay.replay_result import ReplayResult
from verify.replay.zone_files import GeofenceError
from verify.world.tracks import TrackError, read_tracks

_USER = re.compile(r"p-\d+")


@dataclass(frozen=True)
class ReplayOptions:
    """What `nabij replay` was asked, beyond the plan."""

    plan: ReplayPlan
    stream: Stream
    accounts: Path | None
    as_json: bool


def plan_of(  # noqa: PLR0913 - as many as the command has options
    stream: Path,
    *,
    mapping: str | None,
    origin: tuple[float, float],
    participants: int,
    tracks: Path | None,
    speed: str,
    limit: int | None,
    seed: int,
    zones: Sequence[Path],
    id_property: str,
    verify: bool,
    policy: Path | None,
    between: tuple[str | None, str | None] = (None, None),
) -> ReplayPlan:
    """Return the plan that the options describe.

    Raises:
        ConfigError: with every option that is wrong.
    """
    files = [stream, *([tracks] if tracks else []), *zones]
    problems = [
        f"{file}: {'is a directory, not a file' if file.is_dir() else 'no such file'}"
        for file in files
        if not file.exists() or file.is_dir()
    ]
    if speed != "max" and not _is_positive(speed):
        problems.append(f"--speed {speed}: must be a number above 0, or max")
    if mapping is None:
        problems.append("--map NAME|FILE is needed; --inspect proposes one")
    if problems or mapping is None:
        raise ConfigError(problems)
    return ReplayPlan(
        stream=stream,
        mapping=Path(mapping) if Path(mapping).is_file() else mapping,
        origin=origin,
        participants=participants,
        tracks=tracks,
        speed=None if speed == "max" else float(speed),
        limit=limit,
        between=between,
        seed=seed,
        zones=tuple(zones) or (DEMO_ZONES,),
        id_property=id_property,
        verify=Verify.YES if verify else Verify.NO,
        policy_text=policy_text(policy),
    )


def check_files_of(plan: ReplayPlan) -> None:
    """Read zones and tracks once, before a long stream is read and servers are started.

    Raises:
        ConfigError: one of the files cannot be used.
    """
    _areas(plan)
    try:
        plan.oracle()
        if plan.tracks:
            read_tracks(plan.tracks, Position(*plan.origin))
    except OSError as error:
        raise ConfigError([f"{plan.tracks}: {error.strerror}"]) from None
    except (TrackError, GeofenceError) as error:
        raise ConfigError([str(error)]) from None


def read_stream_of(plan: ReplayPlan) -> Stream:
    """Read the stream, and say on standard error what of it cannot be replayed, and why.

    Raises:
        ConfigError: nothing can be.
    """
    try:
        with Progress(f"reading {plan.stream.name}") as progress:
            stream = plan.read(progress.at)
    except StreamError as error:
        raise ConfigError([str(error)]) from None
    say(f"{stream.usable:,} of {stream.rows:,} rows can be replayed; {len(stream.reports):,} are")
    for line in (*stream.losses(), *stream.remarks):
        say(f"  {line}")
    return stream


async def run_replay(
    settings: Settings, workers: Mapping[str, int], options: ReplayOptions
) -> bool:
    """Replay on servers of our own, or on those that are configured; return whether it passed."""
    try:
        if settings.mqtt_url:
            result = await _replay(options, wire_to(settings.mqtt_url, options))
        else:
            result = await _on_our_own(settings, workers, options)
    except (ConnectionRefused, BrokerUnreachable) as error:
        raise UnavailableError(f"MQTT: {error}") from None
    _tell(result, options)
    return result.passed


async def _on_our_own(
    settings: Settings, workers: Mapping[str, int], options: ReplayOptions
) -> ReplayResult:
    plan = options.plan
    await _refuse_used(settings)
    stack = Stack(
        without_listeners(settings),
        workers=workers,
        participants=[f"p-{number:04}" for number in range(1, plan.participants + 1)],
        zones=_zones(plan),
        say=say,
    )
    async with stack:
        await stack.wait_ready()
        say(f"ready: {', '.join(worker.name for worker in stack.supervisor.workers)}")
        return await _replay(options, _wire(stack.mqtt_url, stack.credentials, plan))


async def _refuse_used(settings: Settings) -> None:
    """Refuse a Redis with incidents that the oracle knows nothing of, and that may be a city's."""
    if settings.redis_url is None:
        return
    async with open_partitions(
        settings.redis_url, settings.partitions, opening=Opening.READ
    ) as stores:
        if any([await store.is_used() for store in stores]):
            raise ConfigError(["NABIJ_REDIS_URL: there are reports in it; a replay wants it empty"])


async def _replay(options: ReplayOptions, wire: ReplayLogin) -> ReplayResult:
    began_s = time.monotonic()
    with Progress("connecting") as progress:

        def show(now: ReplayProgress) -> None:
            progress.describe(
                f"{now.phase}: {now.alerts:,} alerts, {now.escalations:,} escalations, "
                f"{now.reports_per_s:,.0f} reports/s"
            )
            progress.at(now.reports, now.total)

        result = await Replay(options.plan, options.stream, wire, show).run()
    say(f"replayed and judged in {time.monotonic() - began_s:.1f} s")
    return result


# Accounts


def wire_to(url: str, options: ReplayOptions) -> ReplayLogin:
    """Return how to reach a running system, with the passwords of `--accounts`.

    Raises:
        ConfigError: the file cannot be used, or names too few participants.
    """
    if options.accounts is None:
        raise ConfigError(["--accounts FILE.json ({user: password}) is needed with NABIJ_MQTT_URL"])
    try:
        passwords = msgspec.json.decode(options.accounts.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError([f"{options.accounts}: {error}"]) from None
    return _wire(each_url(url)[0], passwords, options.plan)


def _wire(url: str, passwords: Mapping[str, str], plan: ReplayPlan) -> ReplayLogin:
    people = {user: text for user, text in passwords.items() if _USER.fullmatch(user)}
    if len(people) < plan.participants:
        raise ConfigError(
            [f"{plan.participants} participants p-1, p-2 … need accounts; {len(people)} have one"]
        )
    return ReplayLogin(
        broker=Broker.from_url(url),
        accounts=people,
        desks=_desks(passwords),
        city=_login(passwords, OPERATOR) or _login(passwords, CITY_DESK),
    )


def _desks(passwords: Mapping[str, str]) -> dict[str, Login]:
    """The operator reads every zone on one connection; else each desk its own."""
    if operator := _login(passwords, OPERATOR):
        return {"*": operator}
    desks = {
        user.removeprefix("desk-"): Login(user, text)
        for user, text in passwords.items()
        if user.startswith("desk-")
    }
    if not desks:
        raise ConfigError([f"no account is a desk: desk-ZONE, desk-{UNASSIGNED} or {OPERATOR}"])
    return desks


def _login(passwords: Mapping[str, str], user: str) -> Login | None:
    return Login(user, passwords[user]) if user in passwords else None


# Zones


def _zones(plan: ReplayPlan) -> list[Zone]:
    areas = _areas(plan)
    with Progress("covering the zones with cells") as progress:
        return covered(areas, progress)


def _areas(plan: ReplayPlan) -> list[Area]:
    files = (read_areas(file, id_property=plan.id_property) for file in plan.zones)
    return [area for file in files for area in file.areas]


# The result


def _tell(result: ReplayResult, options: ReplayOptions) -> None:
    if options.as_json:
        print_json({"passed": result.passed, **result.as_dict()})
    else:
        for name, value in result.as_dict().items():
            if value not in (None, 0, {}, ()):
                print_line(f"{name.replace('_', ' ')}: {_in_words(value)}")
    if result.merged_apart:
        say(
            f"note: {result.merged_apart:,} reports joined incidents although more than their "
            "category's merge_s lies between them in the stream: it is replayed faster than it was"
        )
    if result.pauses_cut:
        say(f"note: {result.pauses_cut:,} pauses were cut to {LONGEST_PAUSE_S:.0f} s")
    say("passed: nothing is missing" if result.passed else "FAILED: see above")


def _in_words(value: Any) -> str:
    """Return a count, or several with their names: `theft 12, fire 3`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_in_words(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(map(_in_words, value))
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False
