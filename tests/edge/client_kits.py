"""MQTT clients that others have written, behind one interface."""

import asyncio
import itertools
import json
import socket
import ssl
from abc import ABC, abstractmethod
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, ClassVar

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

DEADLINE_S = 20.0
V311, V5 = 4, 5
KEPT_S = 600
_NODE = Path(__file__).parents[2] / "examples" / "node"
_NODE_CLIENT = Path(__file__).with_name("mqtt_js.cjs")


@dataclass(frozen=True)
class Received:
    """A message that came."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where a client connects, and as what. It subscribes to `topic`, unless it has a session."""

    port: int
    client_id: str
    version: int = V5
    topic: str | None = None
    qos: int = 2
    is_kept: bool = False
    will: Received | None = None
    certificate: Path | None = None  # of the CA, for TLS


@dataclass
class Kit(ABC):
    """One client. `came` are the messages."""

    options: Options
    came: asyncio.Queue[Received] = field(default_factory=asyncio.Queue)

    @abstractmethod
    async def start(self) -> None:
        """Connect and subscribe."""

    @abstractmethod
    async def publish(self, message: Received) -> None:
        """Publish, and wait until it is acknowledged."""

    @abstractmethod
    async def leave(self) -> None:
        """Say goodbye."""

    @abstractmethod
    async def break_off(self) -> None:
        """Break the network connection off."""

    async def next(self) -> Received:
        """Return the next message."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.came.get()


# -- mosquitto_sub, mosquitto_pub -------------------------------------------------------------------


class MosquittoKit(Kit):
    """The command line clients of Mosquitto: a process that subscribes, and one for each message."""

    _process: Process | None = None
    _reading: asyncio.Task[None]

    async def start(self) -> None:
        options = self.options
        if options.topic is None:
            return
        words = ["-t", options.topic, "-q", str(options.qos), "-F", "got %t %q %r %x", "-d"]
        if options.is_kept:
            words += ["-c", *(["-x", str(KEPT_S)] if options.version == V5 else [])]
        if options.will is not None:
            words += ["--will-topic", options.will.topic, "--will-qos", str(options.will.qos)]
            words += ["--will-payload", options.will.payload.decode()]
        line_by_line = ["stdbuf", "-oL"]
        self._process = await self._run(
            *line_by_line, "mosquitto_sub", client_id=options.client_id, words=words
        )
        subscribed = asyncio.Event()
        self._reading = asyncio.create_task(self._read(self._process, subscribed))
        async with asyncio.timeout(DEADLINE_S):
            await subscribed.wait()

    async def _run(self, *program: str, client_id: str, words: list[str]) -> Process:
        options = self.options
        always = ["-h", "127.0.0.1", "-p", str(options.port), "-u", "ann", "-i", client_id]
        version = "5" if options.version == V5 else "311"
        tls = [] if options.certificate is None else ["--cafile", str(options.certificate)]
        command = [*program, *always, "-V", version, *tls, *words]
        return await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, limit=1 << 20
        )

    async def _read(self, process: Process, subscribed: asyncio.Event) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            words = line.decode().rstrip("\n").split(" ")
            if words[0] == "Subscribed":
                subscribed.set()
            elif words[0] == "got":
                _, topic, qos, retain, payload = words
                is_retained = retain == "1"
                self.came.put_nowait(Received(topic, bytes.fromhex(payload), int(qos), is_retained))

    async def publish(self, message: Received) -> None:
        words = ["-t", message.topic, "-q", str(message.qos), *(["-r"] if message.retain else [])]
        words += ["-s"] if message.payload else ["-n"]
        name = f"{self.options.client_id}-pub"
        process = await self._run("mosquitto_pub", client_id=name, words=words)
        async with asyncio.timeout(DEADLINE_S):
            await process.communicate(message.payload)
        assert process.returncode == 0

    async def leave(self) -> None:
        if self._process is not None:
            self._process.terminate()  # it then says goodbye
            await self._ended(self._process)

    async def break_off(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._ended(self._process)

    async def _ended(self, process: Process) -> None:
        await process.wait()
        await self._reading
        self._process = None


# -- paho -------------------------------------------------------------------------------------------


class PahoKit(Kit):
    """Paho, in a thread of its own."""

    async def start(self) -> None:
        options, self._loop = self.options, asyncio.get_running_loop()
        self._stopped, self._subscribed, self._has_session = Event(), asyncio.Event(), False
        client = self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            options.client_id,
            protocol=paho.MQTTv5 if options.version == V5 else paho.MQTTv311,
            **({} if options.version == V5 else {"clean_session": not options.is_kept}),
        )
        client.username_pw_set("ann")
        client.on_connect, client.on_subscribe = self._on_connect, self._on_subscribe
        client.on_message = self._on_message
        if options.certificate is not None:
            client.tls_set(ca_certs=str(options.certificate))
        if (will := options.will) is not None:
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        how: dict[str, Any] = {}
        if options.version == V5:
            how["clean_start"] = not options.is_kept
            how["properties"] = Properties(PacketTypes.CONNECT)
            how["properties"].SessionExpiryInterval = KEPT_S if options.is_kept else 0
        await asyncio.to_thread(client.connect, "127.0.0.1", options.port, **how)
        self._thread = Thread(target=self._run, name=f"paho {options.client_id}")
        self._thread.start()
        async with asyncio.timeout(DEADLINE_S):
            await self._subscribed.wait()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._client.loop(timeout=0.02)

    def _on_connect(self, client: paho.Client, _: Any, flags: Any, *__: Any) -> None:
        if self.options.topic is not None and not flags.session_present:
            client.subscribe(self.options.topic, self.options.qos)
        else:
            self._loop.call_soon_threadsafe(self._subscribed.set)

    def _on_subscribe(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._subscribed.set)

    def _on_message(self, _: paho.Client, __: Any, found: paho.MQTTMessage) -> None:
        message = Received(found.topic, found.payload, found.qos, found.retain)
        self._loop.call_soon_threadsafe(self.came.put_nowait, message)

    async def publish(self, message: Received) -> None:
        sent = self._client.publish(message.topic, message.payload, message.qos, message.retain)
        await asyncio.to_thread(sent.wait_for_publish, DEADLINE_S)
        assert sent.is_published()

    async def leave(self) -> None:
        self._client.disconnect()
        await self._stop()

    async def break_off(self) -> None:
        await self._stop()
        found = self._client.socket()
        assert found is not None
        found.close()

    async def _stop(self) -> None:
        self._stopped.set()
        await asyncio.to_thread(self._thread.join)


# -- aiomqtt ----------------------------------------------------------------------------------------


class AiomqttKit(Kit):
    """aiomqtt, on the test's event loop."""

    async def start(self) -> None:
        options = self.options
        how: dict[str, Any] = {"clean_session": not options.is_kept}
        if options.version == V5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = KEPT_S if options.is_kept else 0
            how = {"clean_start": not options.is_kept, "properties": properties}
        if (will := options.will) is not None:
            how["will"] = aiomqtt.Will(will.topic, will.payload, will.qos, will.retain)
        if options.certificate is not None:
            how["tls_context"] = ssl.create_default_context(cafile=str(options.certificate))
        version = (
            aiomqtt.ProtocolVersion.V5 if options.version == V5 else aiomqtt.ProtocolVersion.V311
        )
        self._client = aiomqtt.Client(
            "127.0.0.1",
            options.port,
            username="ann",
            identifier=options.client_id,
            protocol=version,
            **how,
        )
        await self._client.__aenter__()
        self._reading = asyncio.create_task(self._read())
        if options.topic is not None:
            await self._client.subscribe(options.topic, options.qos)

    async def _read(self) -> None:
        with suppress(aiomqtt.MqttError):
            async for found in self._client.messages:
                assert isinstance(found.payload, bytes)
                message = Received(str(found.topic), found.payload, found.qos, found.retain)
                self.came.put_nowait(message)

    async def publish(self, message: Received) -> None:
        await self._client.publish(message.topic, message.payload, message.qos, message.retain)

    async def leave(self) -> None:
        self._reading.cancel()
        await self._client.__aexit__(None, None, None)

    async def break_off(self) -> None:
        found = self._client._client.socket()
        assert found is not None
        found.shutdown(socket.SHUT_RDWR)
        await self._reading
        with suppress(aiomqtt.MqttError):
            await self._client.__aexit__(None, None, None)


# -- mqtt.js ----------------------------------------------------------------------------------------


class Node:
    """A process of Node's for all of a module's clients, since it takes long to start."""

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            "node", str(_NODE_CLIENT), cwd=_NODE, stdin=PIPE, stdout=PIPE, limit=1 << 20
        )
        self._names = itertools.count()
        self._kits: dict[int, MqttJsKit] = {}
        self._reading = asyncio.create_task(self._read())

    def add(self, kit: "MqttJsKit") -> int:
        """Return a name for a client."""
        name = next(self._names)
        self._kits[name] = kit
        return name

    def write(self, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            self._kits[said.pop("name")].said(said)

    async def stop(self) -> None:
        self._process.kill()
        await self._process.wait()
        await self._reading


class MqttJsKit(Kit):
    """mqtt.js, in the process of Node's."""

    node: ClassVar[Node]

    async def start(self) -> None:
        options = self.options
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._name = self.node.add(self)
        how: dict[str, Any] = {
            "url": f"mqtt{'' if options.certificate is None else 's'}://127.0.0.1:{options.port}",
            "username": "ann",
            "clientId": options.client_id,
            "protocolVersion": options.version,
            "clean": not options.is_kept,
        }
        if options.version == V5 and options.is_kept:
            how["properties"] = {"sessionExpiryInterval": KEPT_S}
        if options.certificate is not None:
            how["ca"] = options.certificate.read_text()
        if (will := options.will) is not None:
            how["will"] = {"topic": will.topic, "payload": will.payload.hex(), "qos": will.qos}
        has_session = await self._do("connect", **how)
        assert isinstance(has_session, bool), has_session
        if options.topic is not None and not has_session:
            assert await self._do("subscribe", topic=options.topic, qos=options.qos) == options.qos

    async def _do(self, command: str, **options: Any) -> Any:
        self.node.write(command=command, name=self._name, **options)
        async with asyncio.timeout(DEADLINE_S):
            return await self._answers.get()

    def said(self, said: dict[str, Any]) -> None:
        """Node has said something about this client."""
        if "topic" in said:
            said["payload"] = bytes.fromhex(said["payload"])
            self.came.put_nowait(Received(**said))
        else:
            self._answers.put_nowait(said["done"])

    async def publish(self, message: Received) -> None:
        options = {"topic": message.topic, "payload": message.payload.hex()}
        answer = await self._do("publish", **options, qos=message.qos, retain=message.retain)
        assert answer is None

    async def leave(self) -> None:
        assert await self._do("leave") is None

    async def break_off(self) -> None:
        assert await self._do("break_off") is None
