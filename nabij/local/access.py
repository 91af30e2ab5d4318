"""Tests rights at the MQTT broker: as the services, as a stranger, as a participant.

Only delivery counts: our own MQTT broker refuses a SUBSCRIBE to what one may not read, Mosquitto
grants every one, and acknowledges every PUBLISH of MQTT 3.1.1, whatever the ACL says. Each exchange ends with a message that must arrive, so that silence before it
is a result. The topics end in `probe`, which no service subscribes to.
"""

import asyncio
import contextlib
import re
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace

from broker.core.health import Cause, Severity
from broker.identity.acl import branches, patterns
from broker.mqtt import Connection, ConnectionOptions, ConnectRefused, Endpoint, Message
from schemas import topics
from schemas.roles import Role

_CONNECT_S = 5.0
_ARRIVE_S = 3.0
_ACL = "set acl_file in mosquitto.conf to the shipped mosquitto.acl, and restart the MQTT broker"


@dataclass(frozen=True, slots=True)
class _Exchange:
    """What a listener received of a speaker's messages, and which topics were refused."""

    heard: frozenset[str]
    refused: frozenset[str]


async def as_services(services: Endpoint) -> list[Cause]:
    """Publish and receive on every branch of the topics with the services' account.

    Raises:
        MqttError: the MQTT broker cannot be reached, or refuses the account.
    """
    wanted = _branches(_name())
    tried = await _exchange(services, services, wanted)
    return [_cannot(services, topic, tried) for topic in wanted if topic not in tried.heard]


def _cannot(services: Endpoint, topic: str, tried: _Exchange) -> Cause:
    verb = "may not publish" if topic in tried.refused else "does not receive"
    branch = "/".join(topic.split("/")[:3])
    return Cause(
        code="mqtt_deaf",
        what=f"the account {services.username or '(anonymous)'!r} {verb} on {branch}/…: "
        "reports do not reach the services, or answers not the devices",
        mend="use the services' account in NABIJ_MQTT_URL, and give it "
        f"`topic readwrite {topics.ROOT}/#` in the ACL",
    )


async def as_stranger(services: Endpoint) -> list[Cause]:
    """Connect without an account, and with a made-up one: both must be refused.

    Raises:
        MqttError: the MQTT broker cannot be reached.
    """
    causes = []
    if await _lets_in(replace(services, username=None, password=None)):
        causes.append(
            Cause(
                code="mqtt_anonymous",
                what="the MQTT broker lets clients in without an account",
                mend="set `allow_anonymous false` and a password_file in mosquitto.conf, "
                "and restart the MQTT broker",
                severity=Severity.DEGRADES,
            )
        )
    elif await _lets_in(replace(services, username=_name(), password=secrets.token_hex(8))):
        causes.append(
            Cause(
                code="mqtt_any_password",
                what="the MQTT broker lets in an account that does not exist",
                mend="set a password_file in mosquitto.conf, and restart the MQTT broker",
                severity=Severity.DEGRADES,
            )
        )
    return causes


async def has_acl(services: Endpoint) -> list[Cause]:
    """Use a topic outside the contract with the services' account, which an ACL forbids.

    Raises:
        MqttError: the MQTT broker cannot be reached.
    """
    outside, inside = f"{_name()}/probe", topics.PROBE.topic(name="doctor", instance=_name())
    tried = await _exchange(services, services, [outside, inside])
    if outside not in tried.heard:
        return []
    return [
        Cause(
            code="mqtt_no_acl",
            what="no access control by topic is in force, or the services' account stands above it: "
            "it may use topics outside nabij/v1; participants may read each other's",
            mend=f"{_ACL}; `nabij doctor --as USER` tries it as a participant",
            severity=Severity.DEGRADES,
        )
    ]


async def as_participant(services: Endpoint, participant: Endpoint) -> list[Cause]:
    """Use topics of others, and its own, with a participant's account.

    Raises:
        MqttError: the MQTT broker cannot be reached, or refuses the account.
    """
    user = participant.username or ""
    others = _branches(_name())
    readable, writable = (_probes(some, user) for some in branches(Role.PARTICIPANT))
    read = await _exchange(services, participant, [*others, *readable])
    written = await _exchange(participant, services, [*others, *writable])
    causes = []
    for verb, tried, own in (("read", read, readable), ("write", written, writable)):
        foreign = sorted("/".join(topic.split("/")[2:4]) for topic in tried.heard & {*others})
        if foreign:
            causes.append(
                Cause(
                    code="mqtt_no_acl",
                    what=f"the participant {user!r} may {verb} what is of others: {', '.join(foreign)}",
                    mend=_ACL,
                )
            )
        causes += [_shut_out(user, verb, topic) for topic in own if topic not in tried.heard]
    return causes


def _shut_out(user: str, verb: str, topic: str) -> Cause:
    return Cause(
        code="mqtt_participant_deaf",
        what=f"the participant {user!r} cannot {verb} {topic}",
        mend=f"the ACL needs {' and '.join(f'`{one}`' for one in patterns())}; "
        "user names are 1 to 40 of a-z, 0-9 and -",
    )


def _branches(name: str) -> list[str]:
    """Return a topic of each branch, for a user, zone and municipality that do not exist."""
    roles = (Role.PARTICIPANT, Role.POLICE_DESK, Role.CITY_DESK)
    every = dict.fromkeys(one for role in roles for some in branches(role) for one in some)
    return [*_probes(every, name), topics.PROBE.topic(name="doctor", instance=name)]


def _probes(templates: Iterable[str], name: str) -> list[str]:
    return [f"{topics.ROOT}/{re.sub('{.*?}', name, one)}/probe" for one in templates]


async def _exchange(speaker: Endpoint, listener: Endpoint, wanted: Sequence[str]) -> _Exchange:
    """Publish on each topic in order; return what arrived. The last one must."""
    last = wanted[-1]
    async with _subscribed(listener, wanted) as hearing, _connection(speaker, ()) as speaking:
        refused = frozenset(
            [
                topic
                for topic in wanted
                if (await speaking.publish(Message(topic, b"{}"))).is_failure
            ]
        )
        return _Exchange(await _arrived(hearing, last, refused), refused)


@contextlib.asynccontextmanager
async def _subscribed(listener: Endpoint, wanted: Sequence[str]) -> AsyncIterator[Connection]:
    """Open a connection with all of these subscriptions that it may have."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            hearing = await stack.enter_async_context(_connection(listener, wanted))
        except ConnectRefused as error:
            if not error.filters:
                raise
            granted = [one for one in wanted if one not in error.filters]
            hearing = await stack.enter_async_context(_connection(listener, granted))
        yield hearing


async def _arrived(hearing: Connection, last: str, refused: frozenset[str]) -> frozenset[str]:
    heard: set[str] = set()
    timeout_s = 0.5 if last in refused else _ARRIVE_S
    try:
        async with asyncio.timeout(timeout_s):
            while last not in heard:
                for delivery in await hearing.receive(100):
                    delivery.acknowledge()
                    heard.add(delivery.message.topic)
    except TimeoutError:
        pass
    return frozenset(heard)


async def _lets_in(stranger: Endpoint) -> bool:
    try:
        async with _connection(stranger, ()):
            return True
    except ConnectRefused:
        return False


def _connection(endpoint: Endpoint, subscriptions: Sequence[str]) -> Connection:
    return Connection(
        endpoint,
        client_id=f"nabij-probe-{secrets.token_hex(8)}",
        subscriptions=subscriptions,
        options=ConnectionOptions(
            session_expiry_s=0, connect_timeout_s=_CONNECT_S, drain_timeout_s=0.5
        ),
    )


def _name() -> str:
    return f"probe-{secrets.token_hex(6)}"
