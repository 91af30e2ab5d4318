"""The world that chaos strikes: servers, two workers of each service, desks and devices.

All of them are real processes. What dies is started again: servers by `nabij/local/servers.py`,
workers by `nabij/local/supervisor.py`, and processes of devices here, with their journals.
"""

import asyncio
import os
import re
import secrets
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

import nabij
from broker.core.zones import UNASSIGNED, ZoneKind
from broker.runtime.config import Settings
from broker.store import open_partitions
from broker.store.kernel.keys import Keys
from nabij.local import parent_death
from nabij.local.acquired import Acquired
from nabij.local.embedded import Account, EmbeddedMqtt, EmbeddedRedis, MqttEngine
from nabij.local.managed_process import Child
from nabij.local.servers import Servers
from nabij.local.supervisor import WORKER
from nabij.local.worker_environment import worker_environment
from nabij.local.zone_files import built_in_zones
from schemas.roles import Role
from schemas.taxonomy import default_policy_text
from services import ALL
from verify.chaos.chaos_desk import DeskOrders
from verify.chaos.chaos_device import DeviceOrders
from verify.chaos.hosts import Hosts
from verify.chaos.plan import SERVERS, Strike, Victim

WORKERS = 2  # of each service, on one host or on several together
PEOPLE = 200
PROCESSES = 4
RESTART_S = 0.3
END_S = 5.0
# Quick enough that deadlines fire within a short run.
POLICY = {"accept_s": "8", "acknowledge_s": "6", "max_waves": "2"}

_ROOT = Path(nabij.__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much happens: reports, over how long (None: as fast as it goes), by whom."""

    reports: int
    lasts_s: float | None
    seed: int
    engine: MqttEngine = MqttEngine.AUTO
    worker: Sequence[str] = WORKER
    partitions: int = 1
    hosts: Sequence[str] = ("1",)


@dataclass(eq=False)
class Life:
    """A process of devices or desks, which is started again when it dies."""

    module: str
    orders: Path
    process: Process | None = None
    keeper: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        return self.process.pid if self.process else None


class ChaosWorld(Acquired):
    """Everything, running while the `async with` lasts; see `wait_ready`."""

    def __init__(self, directory: Path, scale: Scale) -> None:
        self.directory = directory
        self.scale = scale
        self.logs = directory / "logs"
        self.users = tuple(f"p-{number}" for number in range(1, PEOPLE + 1))
        self.zones: tuple[str, ...] = ()
        self.municipalities: tuple[str, ...] = ()
        self.accounts: dict[str, Account] = {}
        self.devices: list[Life] = []
        self.desk: Life
        self.mqtt: EmbeddedMqtt
        self.redis: EmbeddedRedis
        self.hosts: Hosts
        self.policy_text = policy_text()
        self.partitions = [Keys(number, scale.partitions) for number in range(scale.partitions)]
        self._ending = False

    # Life

    async def _acquire(self, acquired: AsyncExitStack) -> None:
        self.logs.mkdir(parents=True)
        (self.directory / "journals").mkdir()
        servers = await acquired.enter_async_context(Servers())
        self.redis = await servers.start_redis(self.directory)
        await self._save_zones()
        self.accounts = {account.username: account for account in self._accounts()}
        accounts = list(self.accounts.values())
        self.mqtt = await servers.start_mqtt(self.directory, accounts, engine=self.scale.engine)
        names = self.scale.hosts
        self.hosts = Hosts(
            self._environment(),
            self.scale.worker,
            names=names,
            workers=dict.fromkeys(ALL, max(1, WORKERS // len(names))),
        )
        await acquired.enter_async_context(self.hosts)
        acquired.push_async_callback(self.end_lives)

    async def _save_zones(self) -> None:
        async with open_partitions(self.redis.url, self.scale.partitions) as (store, *_):
            for kind in ZoneKind:
                await store.zones.save(kind, built_in_zones(kind))
        police = (zone.id for zone in built_in_zones(ZoneKind.POLICE))
        self.zones = (*sorted({*police}), UNASSIGNED)
        municipalities = (zone.id for zone in built_in_zones(ZoneKind.MUNICIPALITY))
        self.municipalities = (*sorted({*municipalities}), UNASSIGNED)

    def _accounts(self) -> list[Account]:
        def password() -> str:
            return secrets.token_hex(8)

        return [
            Account("nabij", password(), Role.SERVICE),
            Account("operator", password(), Role.SERVICE),
            Account("city-desk", password(), Role.CITY_DESK),
            Account("probe", password(), Role.PARTICIPANT),
            *(Account(f"desk-{zone}", password(), Role.POLICE_DESK, zone) for zone in self.zones),
            *(Account(user, password(), Role.PARTICIPANT) for user in self.users),
        ]

    def _environment(self) -> dict[str, str]:
        policy = self.directory / "policy.toml"
        policy.write_text(self.policy_text, encoding="utf-8")
        settings = Settings(
            mqtt_url=self.mqtt.url_for(self.accounts["nabij"]),
            redis_url=self.redis.url,
            share_group=secrets.token_hex(16),
            partitions=self.scale.partitions,
            data_dir=self.directory,
            policy=policy,
            log_level="error",
            log_format="json",
        )
        return worker_environment(settings)

    @property
    def broker_url(self) -> str:
        """Where devices connect, without a user."""
        return f"mqtt://{self.mqtt.host}:{self.mqtt.port}"

    @property
    def mqtt_has_journal(self) -> bool:
        """Whether what the MQTT broker acknowledges is on its disk; Mosquitto has it in memory."""
        return self.scale.engine is not MqttEngine.MOSQUITTO

    # Devices and desks

    async def start_desk(self) -> None:
        """Start the desks of all zones and the city's."""
        city = self.accounts["city-desk"]
        desks = {zone: self.accounts[f"desk-{zone}"] for zone in self.zones}
        orders = DeskOrders(
            directory=str(self.logs),
            broker=self.broker_url,
            zones={zone: (desk.username, desk.password) for zone, desk in desks.items()},
            city=(city.username, city.password),
            municipalities=[*self.municipalities],
            seed=self.scale.seed,
        )
        self.desk = self._begin("verify.chaos.chaos_desk", "desk", orders)

    async def start_devices(self, starts_at: float) -> None:
        """Start all devices; they make their reports from `starts_at` (Unix time) on."""
        for number in range(PROCESSES):
            users = self.users[number::PROCESSES]
            share = (self.scale.reports + PROCESSES - 1 - number) // PROCESSES
            orders = DeviceOrders(
                process=f"device-{number + 1}",
                directory=str(self.logs),
                journals=str(self.directory / "journals"),
                broker=self.broker_url,
                users={user: self.accounts[user].password for user in users},
                seed=self.scale.seed,
                reports=share,
                starts_at=starts_at,
                lasts_s=self.scale.lasts_s,
            )
            self.devices.append(self._begin("verify.chaos.chaos_device", orders.process, orders))

    def hush_devices(self) -> None:
        """Have all devices make nothing new, those too that are just being started again."""
        (self.logs / "hushed").touch()
        for life in self.devices:
            if life.process:
                life.process.send_signal(signal.SIGUSR1)

    def _begin(self, module: str, name: str, orders: msgspec.Struct) -> Life:
        path = self.directory / f"{name}.json"
        path.write_bytes(msgspec.json.encode(orders))
        life = Life(module, path)
        life.keeper = asyncio.create_task(self._keep(life), name=f"keep {name}")
        return life

    async def _keep(self, life: Life) -> None:
        errors = life.orders.with_suffix(".stderr")
        while not self._ending:
            with errors.open("ab") as log:
                life.process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid())),
                    *(sys.executable, "-m", life.module, str(life.orders)),
                    cwd=_ROOT,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            await life.process.wait()
            life.process = None
            if not self._ending:
                await asyncio.sleep(RESTART_S)

    async def end_lives(self) -> None:
        """End devices and desks politely: their journals are to be read."""
        self._ending = True
        lives = [*self.devices, *([self.desk] if hasattr(self, "desk") else [])]
        for life in lives:
            if life.process:
                life.process.terminate()
        keepers = [life.keeper for life in lives if life.keeper]
        if keepers:
            await asyncio.wait(keepers, timeout=END_S)
        for life in lives:
            if life.process:
                life.process.kill()
        await asyncio.gather(*keepers, return_exceptions=True)

    # Victims

    def pid_of(self, strike: Strike) -> int | None:
        """Return the process to strike, if it is there now."""
        if strike.victim in SERVERS:
            server: Child = self.mqtt if strike.victim == Victim.MQTT else self.redis
            return server.pid if server.running else None
        if strike.victim == Victim.DEVICE:
            return self.devices[int(strike.pick * len(self.devices))].pid
        workers = [each for each in self.hosts.workers if each.service == strike.victim]
        return workers[int(strike.pick * len(workers))].pid if workers else None

    @property
    def whole(self) -> bool:
        """Whether everything runs."""
        lives = (*self.devices, self.desk)
        return (
            self.mqtt.running
            and self.redis.running
            and self.hosts.ready
            and all(life.process is not None for life in lives)
        )

    def processes(self) -> Mapping[str, int]:
        """Return what runs now, by name."""
        found = {"mqtt": self.mqtt.pid, "redis": self.redis.pid, "chaos": os.getpid()}
        found |= self.hosts.processes()
        lives = {life.orders.stem: life.pid for life in (*self.devices, self.desk)}
        return found | {name: pid for name, pid in lives.items() if pid}


def policy_text() -> str:
    """Return the shipped policy with the quick deadlines of chaos."""
    text = default_policy_text()
    for name, value in POLICY.items():
        text, count = re.subn(rf"^{name} = \S+", f"{name} = {value}", text, flags=re.MULTILINE)
        assert count == 1, name
    return text
