"""One MQTT 5 connection that a device keeps: it reconnects with jitter and subscribes again.

Built on aiomqtt, with care for what it does:

- Without TCP_NODELAY a round trip takes 44 ms (Nagle meets the delayed ACK), so it is always set.
- It acknowledges a message before the application has handled it, and starts a task for each. Here
  its queue passes a message on at once, inside paho's callback: paho sends the PUBACK only after
  the callback has returned, and there is no task and no wait.
- It waits with `asyncio.wait_for`, which in Python 3.11 swallows a cancellation that arrives
  together with the result (bpo-42130). `raise_if_cancelled` follows each such wait.
- It waits for an answer also where the connection that it would come by is lost: see
  `AnsweredClient` and `_unless`.
- It reports refused publishes as successes, and does not wait for the second CONNACK when a client
  is used again. So no PUBACK is relied on (see `devices/await_receipt.py`), and each connection has
  a client of its own.
"""

import asyncio
import contextlib
import enum
import functools
import hmac
import logging
import random
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar, cast
from urllib.parse import urlsplit

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from aiomqtt.types import SocketOption
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from devices.answered_client import AnsweredClient

NODELAY: tuple[SocketOption, ...] = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
KEEPALIVE_S = 30
RETRY_BASE_S = 0.25
RETRY_MOST_S = 30.0
# How long to wait for the MQTT broker's answer at first: one that has just restarted may never
# answer. Each further attempt waits longer, for slow networks.
ANSWER_BASE_S = 4.0
ANSWER_MOST_S = 30.0
# A connection that is lost sooner lengthens the pause, as one that was refused does.
LASTING_S = 5.0
_CANCEL_AGAIN_S = 1.0
SESSION_EXPIRY_S = 86_400

log = logging.getLogger(__name__)


class ConnectionRefused(Exception):  # noqa: N818 - read as `except ConnectionRefused`
    """The MQTT broker refuses the connection or a subscription."""


class BrokerUnreachable(Exception):  # noqa: N818 - read as `except BrokerUnreachable`
    """No MQTT broker answered in time."""


@dataclass(frozen=True, slots=True)
class Broker:
    """The address of the MQTT broker."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Read `mqtt://host[:port]` or, over TLS, `mqtts://host[:port]`.

        Raises:
            ValueError: it is not such a URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise ValueError(f"{url!r} is no MQTT URL such as mqtt://host:1883")
        if parts.scheme == "mqtts":
            return cls(parts.hostname, parts.port or 8883, ssl.create_default_context())
        return cls(parts.hostname, parts.port or 1883)


@dataclass(frozen=True, slots=True)
class Identity:
    """The account and client id of a device. `client_id` names its session, so no two share one."""

    username: str
    password: str | None = field(repr=False)
    client_id: str
    session_expiry_s: int = SESSION_EXPIRY_S


def client_id(username: str, device: str, password: str | None) -> str:
    """Return the client id of one of a user's devices, the same at each start.

    A client that connects with this client id takes its session and its queue, so the id has a part
    that only the password's owner can derive.
    """
    name = f"{username}-{device}"
    if password is None:
        return name
    secret = hmac.digest(password.encode(), name.encode(), "sha256").hex()
    return f"{name}-{secret[:16]}"


@dataclass(frozen=True, slots=True)
class Incoming:
    """A received message; `received_at` is Unix time in seconds."""

    topic: str
    payload: bytes
    correlation: bytes | None
    received_at: float


Handler = Callable[[Incoming], None]
T = TypeVar("T")


class WhenUnreachable(enum.Enum):
    """What entering a connection does when no MQTT broker answers in time."""

    FAIL = "fail"
    KEEP_TRYING = "keep trying"


@dataclass(frozen=True, slots=True, eq=False)
class DeviceLink:
    """One connection; `lost` is done when it has ended."""

    client: aiomqtt.Client
    lost: asyncio.Future[None]

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, properties: Properties | None = None
    ) -> None:
        """Send, or give up when the connection is lost: aiomqtt would wait for an answer until late.

        Neither its return nor a failure tells whether it arrived: only a receipt does.
        """
        if not self.lost.done():
            sending = self.client.publish(topic, payload, qos=qos, properties=properties)
            with contextlib.suppress(aiomqtt.MqttError):
                await _unless(self.lost, sending)


class DeviceConnection:
    """An async context manager that stays connected and subscribed to `filters`.

    Entering waits for the first connection. `on_message` is called from paho's own callback; what
    it raises is logged, and only that message is affected.

    Raises:
        ConnectionRefused: on entering: wrong password, or a subscription is denied.
        BrokerUnreachable: on entering: no answer within `connect_timeout_s`, unless
            `when_unreachable` says to keep trying.
    """

    def __init__(
        self,
        broker: Broker,
        identity: Identity,
        *,
        filters: Sequence[str],
        on_message: Handler,
        connect_timeout_s: float = 10.0,
        when_unreachable: WhenUnreachable = WhenUnreachable.FAIL,
    ) -> None:
        self._broker = broker
        self._identity = identity
        self._filters = [(name, SubscribeOptions(qos=1)) for name in filters]
        self._on_message = on_message
        self._connect_timeout_s = connect_timeout_s
        self._when_unreachable = when_unreachable
        self._link: asyncio.Future[DeviceLink]
        self._refused: asyncio.Future[str]
        self._keeper: asyncio.Task[None]
        self.connections = 0

    @property
    def connected(self) -> bool:
        """Whether it is connected now."""
        return self._link.done()

    @property
    def current(self) -> DeviceLink | None:
        """The present connection, if there is one."""
        return self._link.result() if self._link.done() else None

    @property
    def changed(self) -> asyncio.Future[Any]:
        """A future that is done when the connection is lost or, if there is none, when there is one."""
        return self._link.result().lost if self._link.done() else self._link

    async def link(self) -> DeviceLink:
        """Return the connection; wait until there is one."""
        return await asyncio.shield(self._link)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._link, self._refused = loop.create_future(), loop.create_future()
        name = f"keep {self._identity.client_id} connected"
        self._keeper = loop.create_task(self._keep(), name=name)
        try:
            await self._first_connection()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _first_connection(self) -> None:
        first: set[asyncio.Future[Any]] = {self._keeper, self._refused, self._link}
        await asyncio.wait(
            first, timeout=self._connect_timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if self._refused.done():
            raise ConnectionRefused(self._refused.result())
        if not self.connected and self._when_unreachable is WhenUnreachable.FAIL:
            raise BrokerUnreachable(
                f"no MQTT broker at {self._broker.host}:{self._broker.port} "
                f"within {self._connect_timeout_s:g} s"
            )

    async def _stop(self) -> None:
        await end(self._keeper)

    async def _keep(self) -> None:
        answer_s, pause_s = ANSWER_BASE_S, RETRY_BASE_S
        while True:
            raise_if_cancelled()
            began, before = time.monotonic(), self.connections
            try:
                await self._connect_once(answer_s)
            except (MqttConnectError, ConnectionRefused) as error:
                self._note_refusal(str(error))
            except aiomqtt.MqttError as error:
                log.info("%s: %s", self._identity.client_id, error)
            took_s, was_connected = time.monotonic() - began, self.connections > before
            if was_connected:
                answer_s = ANSWER_BASE_S
            elif took_s >= answer_s:  # unanswered; one that was lost says nothing of answers
                answer_s = min(ANSWER_MOST_S, 2 * answer_s)
            if was_connected and took_s >= LASTING_S:
                pause_s = RETRY_BASE_S
            else:
                pause_s = min(RETRY_MOST_S, 2 * pause_s)
            await asyncio.sleep(random.uniform(0, pause_s))

    def _note_refusal(self, reason: str) -> None:
        log.warning("%s: refused: %s", self._identity.client_id, reason)
        if not self._refused.done():
            self._refused.set_result(reason)

    async def _connect_once(self, answer_s: float) -> None:
        """Connect, subscribe, and return or raise when the connection ends."""
        async with self._client(answer_s) as client:
            # None comes (see _Handover): this raises when the connection ends.
            over = asyncio.ensure_future(anext(client.messages))
            try:
                granted = await _unless(over, client.subscribe(self._filters)) or ()
                raise_if_cancelled()
                if any(code.value >= 0x80 for code in granted if isinstance(code, ReasonCode)):
                    raise ConnectionRefused("a subscription was denied")
                if not over.done():
                    with self._linked(client):
                        await asyncio.wait([over])
            finally:
                await ended(over)
            over.result()

    @contextlib.contextmanager
    def _linked(self, client: aiomqtt.Client) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        lost: asyncio.Future[None] = loop.create_future()
        self.connections += 1
        self._link.set_result(DeviceLink(client, lost))
        try:
            yield
        finally:
            self._link = loop.create_future()
            lost.set_result(None)

    def _client(self, answer_s: float) -> aiomqtt.Client:
        queue = functools.partial(_Handover, self._hand_over)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._identity.session_expiry_s
        return AnsweredClient(
            self._broker.host,
            self._broker.port,
            username=self._identity.username,
            password=self._identity.password,
            identifier=self._identity.client_id,
            timeout=answer_s,
            queue_type=cast("type[asyncio.Queue[aiomqtt.Message]]", queue),
            protocol=aiomqtt.ProtocolVersion.V5,
            keepalive=KEEPALIVE_S,
            clean_start=False,
            properties=properties,
            tls_context=self._broker.tls,
            socket_options=NODELAY,
        )

    def _hand_over(self, message: aiomqtt.Message) -> None:
        received_at = time.time()
        correlation = getattr(message.properties, "CorrelationData", None)
        payload = bytes(message.payload)
        try:
            self._on_message(Incoming(str(message.topic), payload, correlation, received_at))
        except Exception:
            # The only broad catch: raised, it would end the connection before the PUBACK, and
            # the same message would end the next one.
            log.exception("%s: message on %s", self._identity.client_id, message.topic)


async def _unless(lost: asyncio.Future[Any], work: Coroutine[Any, Any, T]) -> T | None:
    """Return what `work` returns, or None when the connection is lost before that."""
    doing = asyncio.create_task(work)
    try:
        waits: set[asyncio.Future[Any]] = {doing, lost}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        await ended(doing)


def raise_if_cancelled() -> None:
    """Raise CancelledError if the task was cancelled: a cancellation was swallowed."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def end(task: asyncio.Task[None]) -> None:
    """Cancel `task` until it has ended, and raise what it raised."""
    await ended(task)
    if not task.cancelled():
        task.result()


async def ended(task: asyncio.Future[Any]) -> None:
    """Cancel `task` until it has ended, however it does.

    Once may not be enough: the `wait_for` of Python 3.11, which aiomqtt uses, swallows a
    cancellation that arrives together with its result.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_AGAIN_S)
    if not task.cancelled():
        task.exception()  # else it is logged that nobody looked at it


class _Handover(asyncio.Queue[aiomqtt.Message]):
    """A queue for aiomqtt that holds no message: each is handled when it is put."""

    def __init__(self, handler: Callable[[aiomqtt.Message], None], maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self._handler = handler

    def put_nowait(self, message: aiomqtt.Message) -> None:
        """Handle the message."""
        self._handler(message)
