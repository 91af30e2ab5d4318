"""A replay at full speed goes in rounds: nobody is ever more than a round behind."""

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from devices.device_connection import Broker
from nabij.local.embedded import Account
from schemas.messages import Receipt
from tests.replay.own_mapping import MAPPING
from tests.services.system import KORENMARKT, System
from verify.replay import replay as module
from verify.replay.replay import Replay, ReplayLogin
from verify.replay.replay_desk import EscalationWatch, Login
from verify.replay.replay_plan import ReplayPlan, Verify

pytestmark = pytest.mark.asyncio(loop_scope="module")

REPORTS, OF_A_ROUND = 16, 4


@pytest.fixture
def plan(tmp_path: Path) -> ReplayPlan:
    lat, lon = KORENMARKT
    rows = [
        f"2024-01-01T00:{number:02},{lat + 0.009 * (number - REPORTS / 2)},{lon},brand"
        for number in range(REPORTS)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(["t,lat,lon,what", *rows]))
    (tmp_path / "own.toml").write_text(MAPPING)
    return ReplayPlan(
        stream=tmp_path / "rows.csv",
        mapping=tmp_path / "own.toml",
        origin=KORENMARKT,
        participants=OF_A_ROUND,
        verify=Verify.NO,
    )


async def test_a_slow_desk_has_answered_a_round_before_the_next_but_one(
    system: System,
    accounts: dict[str, Account],
    plan: ReplayPlan,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def slowly(self: EscalationWatch, incident: UUID, zone: str) -> Receipt:
        await asyncio.sleep(0.15)
        return await acknowledge(self, incident, zone)

    acknowledge = EscalationWatch.acknowledge
    monkeypatch.setattr(EscalationWatch, "acknowledge", slowly)
    monkeypatch.setattr(module, "ROUND_REPORTS", OF_A_ROUND)
    monkeypatch.setattr(module, "ACKNOWLEDGING", 1)
    passwords = {name: each.password for name, each in accounts.items() if name.startswith("p-")}
    replay = Replay(
        plan,
        plan.read(),
        ReplayLogin(
            broker=Broker.from_url(system.settings.mqtt_url),
            accounts=passwords,
            desks={"gent": Login("desk-gent", accounts["desk-gent"].password)},
        ),
    )

    await replay.run()

    reports = sorted(replay.history.reports, key=lambda report: report.sent_at)
    answered_at = {deed.incident: deed.received_at for deed in replay.history.acknowledgements}
    rounds = [reports[at : at + OF_A_ROUND] for at in range(0, REPORTS, OF_A_ROUND)]
    assert len(answered_at) == REPORTS
    for before, after in zip(rounds, rounds[2:], strict=False):
        last_at = max(answered_at[report.incident] for report in before if report.incident)
        assert last_at <= after[0].sent_at
