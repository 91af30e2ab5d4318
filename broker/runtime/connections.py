"""A worker's connections to the MQTT broker, or to each of several, and their status."""

import asyncio
import hashlib
import hmac
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import cache
from importlib.metadata import version

from broker.errors import ConfigError
from broker.hosts import each_url
from broker.mqtt import (
    BrokerPool,
    Connection,
    ConnectionHooks,
    ConnectionOptions,
    Endpoint,
    Message,
    ServerStatus,
    connections_of,
)
from broker.runtime.config import Settings
from broker.runtime.externals import Externals
from broker.runtime.probes import probe_topic
from broker.runtime.service import Service, outgoing
from schemas import topics
from schemas.messages import ServiceState, ServiceStatus

RECEIVE_MAXIMUM = 1_000  # in hand
_DIGITS = 32  # 128 bits
_AMONG_SEVERAL_S = 2.0  # so long one of several MQTT brokers is waited for at the start


def endpoints_of(settings: Settings) -> list[Endpoint]:
    """Return where the MQTT brokers are.

    Raises:
        ConfigError: a URL is none.
    """
    assert settings.mqtt_url is not None
    try:
        return [Endpoint.from_url(url) for url in each_url(settings.mqtt_url)]
    except ValueError as error:
        raise ConfigError([f"NABIJ_MQTT_URL: {error}"]) from error


def connect(
    service: Service,
    settings: Settings,
    instance: str,
    *,
    endpoints: Sequence[Endpoint],
    connected: Sequence[asyncio.Event],
    before_reconnect: Callable[[], Awaitable[None]] | None,
    externals: Externals,
) -> Connection | BrokerPool:
    """Return the connection to the MQTT broker, or to all of several."""

    def connection(number: int, *, among_several: bool) -> Connection:
        hooks = ConnectionHooks(
            before_reconnect=before_reconnect,
            on_connect=connected[number].set,
            on_lost=(lambda: several.lost(number)) if among_several else None,
        )
        return externals.open_mqtt(
            endpoints[number],
            client_id=client_id_of(service, settings, instance),
            subscriptions=filters_of(service, settings, instance),
            will=status_of(service, instance, ServiceState.LOST, externals.clock.now()),
            options=_options(service, instance, among_several=among_several),
            hooks=hooks,
        )

    if len(endpoints) == 1:
        return connection(0, among_several=False)
    several = BrokerPool(
        [connection(number, among_several=True) for number in range(len(endpoints))]
    )
    return several


def _options(service: Service, instance: str, *, among_several: bool) -> ConnectionOptions:
    return ConnectionOptions(
        shown_as=shown_as(service.name, instance),
        receive_maximum=RECEIVE_MAXIMUM,
        connect_timeout_s=_AMONG_SEVERAL_S if among_several else 10.0,
        must_connect=not among_several,
    )


def shown_as(service: str, instance: str) -> str:
    """Return what logs call a worker's session: its client id is a secret."""
    return f"nabij-{service}-{instance}"


def client_id_of(service: Service, settings: Settings, instance: str) -> str:
    """Return a worker's client id, which nobody can guess and which a restart does not change.

    The MQTT broker gives a session to any client that connects with its client id, whatever the
    account: it would take the worker's place, and its share of all reports (MQTT 5, 5.4.2).
    """
    name = shown_as(service.name, instance)
    digest = hmac.new(_share_group(settings).encode(), name.encode(), hashlib.sha256).hexdigest()
    return f"{name}-{digest[:_DIGITS]}"


def filters_of(service: Service, settings: Settings, instance: str) -> list[str]:
    """Return what a worker subscribes to: its share of each topic, and its own probes."""
    shared = _shared(settings)
    return [
        *(shared + one.topic.filter() for one in service.subscriptions if one.moved_to is None),
        shared + probe_topic(service.name, instance),
    ]


def moved_filters_of(service: Service, settings: Settings) -> dict[str, list[str]]:
    """Return what a session from an older release may hold too, by the service that has it now."""
    moved: dict[str, list[str]] = defaultdict(list)
    for one in service.subscriptions:
        if one.moved_to is not None:
            moved[one.moved_to].append(_shared(settings) + one.topic.filter())
    return moved


def _shared(settings: Settings) -> str:
    return f"$share/{_share_group(settings)}/"


def _share_group(settings: Settings) -> str:
    assert settings.share_group is not None, "`config.load` or the stack has set it"
    return settings.share_group


def servers(
    mqtt: Connection | BrokerPool, endpoints: Sequence[Endpoint], externals: Externals
) -> list[ServerStatus]:
    """Return what each MQTT broker is asked about itself."""
    return [
        ServerStatus(
            endpoint,
            connection,
            number=number,
            open_mqtt=externals.open_mqtt,
            wall_s=externals.clock.wall_s,
        )
        for number, (endpoint, connection) in enumerate(
            zip(endpoints, connections_of(mqtt), strict=True)
        )
    ]


def status_of(service: Service, instance: str, state: ServiceState, at: datetime) -> Message:
    """Return what a worker says of itself, retained; `lost` is its last will."""
    status = ServiceStatus(
        service=service.name,
        instance=instance,
        state=state,
        at=at,
        version=_version(),
    )
    return outgoing(topics.SERVICE, status, name=service.name, instance=instance)


@cache
def _version() -> str:
    return version("nabij")


def no_status_of(service: Service, instance: str) -> Message:
    """Return what removes the retained status of a worker whose session has ended."""
    topic = topics.SERVICE.topic(name=service.name, instance=instance)
    return Message(topic, b"", retain=True)
