"""What `nabij doctor` finds at the MQTT broker: as the services, a stranger and a participant."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from broker.core.health import Cause
from broker.errors import ConfigError
from broker.hosts import each_url
from broker.mqtt import ConnectRefused, Endpoint, MqttError
from broker.runtime import config
from broker.runtime.config import Settings
from broker.runtime.mqtt_causes import account_refused, name_of, told_of_mqtt
from nabij.doctor_finding import CheckResult, Finding, mend_of
from nabij.local.access import as_participant, as_services, as_stranger, has_acl
from nabij.local.data_directory import DataDir
from nabij.local.embedded import MqttEngine, pick_mqtt
from nabij.local.stack import TRY_IT

_OF_PARTICIPANT = "a participant's account"
_UNTRIED = (
    "not tried: `nabij doctor --as USER`, with its password in NABIJ_DEVICE_PASSWORD, tells whether "
    "participants are kept to their own topics"
)


@dataclass(frozen=True, slots=True)
class _Participant:
    """Whom to try each MQTT broker as; `untried` is told where there is no password to do so."""

    user: str | None
    password: str | None
    untried: Finding


async def try_mqtt(settings: Settings, user: str | None) -> list[Finding]:
    """Return what is found at each MQTT broker; `user` is the participant to try it as, if named."""
    data_dir = DataDir(settings.data_dir)
    running = data_dir.running()
    url = settings.mqtt_url or (running and running.mqtt_url)
    participant = _participant(data_dir, user, settings)
    if not url:
        nowhere = [_not_tried(user, data_dir, settings, participant.password)] if user else []
        return [_embedded_mqtt(settings), *nowhere]
    several = await asyncio.gather(*(_mqtt_at(one, participant) for one in each_url(url)))
    return [finding for found in several for finding in found]


def _participant(data_dir: DataDir, named: str | None, settings: Settings) -> _Participant:
    """Return the participant to test with: the named one, or else one of the embedded broker's."""
    user, password = named, config.device_password()
    if password is None and settings.mqtt_url is None:
        user = named or TRY_IT[0]
        password = data_dir.known_passwords().get(user)
    untried = Finding(CheckResult.NOTE, _OF_PARTICIPANT, _UNTRIED)
    if named and password is None:
        untried = _not_tried(named, data_dir, settings, password)
    return _Participant(user, password, untried)


def _not_tried(user: str, data_dir: DataDir, settings: Settings, password: str | None) -> Finding:
    """Return why the participant that was named is not tried."""
    known = ", ".join(sorted(data_dir.known_passwords()))
    if password is not None:
        told = (
            f"{user!r} is not tried: no MQTT broker runs. Start `nabij up`, or set NABIJ_MQTT_URL"
        )
    elif settings.mqtt_url is None and known:
        told = f"there is no account {user!r} in {data_dir.path}. It has: {known}"
    else:
        told = f"{user!r} is not tried: set NABIJ_DEVICE_PASSWORD to its password"
    return Finding(CheckResult.BROKEN, _OF_PARTICIPANT, told)


def _embedded_mqtt(settings: Settings) -> Finding:
    try:
        _, name = pick_mqtt(MqttEngine(settings.mqtt))
    except ConfigError as error:
        return Finding(CheckResult.BROKEN, "MQTT broker", str(error))
    return Finding(CheckResult.OK, "MQTT broker", f"none configured: {name} is started")


async def _mqtt_at(url: str, participant: _Participant) -> list[Finding]:
    found: list[Finding] = []
    try:
        endpoint = Endpoint.from_url(url)
    except ValueError as error:
        return [Finding(CheckResult.BROKEN, "MQTT broker", f"NABIJ_MQTT_URL: {error}")]
    try:
        async for finding in _tried(endpoint, participant):
            found.append(finding)  # noqa: PERF401 - what was found before an error is kept
    except MqttError as error:
        found.append(Finding(CheckResult.BROKEN, "MQTT broker", told_of_mqtt(error, endpoint)))
    return found


async def _tried(services: Endpoint, participant: _Participant) -> AsyncIterator[Finding]:
    """Yield what the services, a stranger and the participant may do there, one after another."""
    name = name_of(services)
    try:
        causes = await as_services(services)
    except ConnectRefused as error:
        yield _refused("the services' account", error, services)
        return
    yield Finding(CheckResult.OK, "MQTT broker", f"{services.host}:{services.port} answers")
    if not causes:
        yield Finding(CheckResult.OK, "the services' account", f"{name} publishes and receives")
    for cause in [*causes, *await as_stranger(services)]:
        yield _broken(cause)
    if participant.user and participant.password:
        for finding in await _participant_tried(services, participant.user, participant.password):
            yield finding
        return
    for cause in await has_acl(services):
        yield _broken(cause)
    yield participant.untried


async def _participant_tried(services: Endpoint, user: str, password: str) -> list[Finding]:
    participant = replace(services, username=user, password=password)
    try:
        causes = await as_participant(services, participant)
    except ConnectRefused as error:
        return [_refused(_OF_PARTICIPANT, error, participant, "NABIJ_DEVICE_PASSWORD")]
    told = f"{user} reads and writes its own topics and no others"
    return [*map(_broken, causes)] or [Finding(CheckResult.OK, _OF_PARTICIPANT, told)]


def _broken(cause: Cause) -> Finding:
    return Finding(CheckResult.BROKEN, "MQTT broker", f"{cause.what}. {mend_of(cause)}")


def _refused(what: str, error: ConnectRefused, endpoint: Endpoint, *setting: str) -> Finding:
    cause = account_refused(error, endpoint, *setting)
    return Finding(CheckResult.BROKEN, what, f"{cause.what}. {mend_of(cause)}")
