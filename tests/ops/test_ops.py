"""What is in `ops/`: alarms that fire when they should, and no metric that /metrics does not export."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.conftest import start
from tests.cli.up_process import Up, get

__all__ = ["start"]

OPS = Path(__file__).parents[2] / "ops"
RULES = OPS / "prometheus" / "rules.yml"
DASHBOARD = json.loads((OPS / "grafana" / "nabij.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def promtool(program: Callable[..., str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    path = program("promtool")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [path, *words], cwd=RULES.parent, capture_output=True, text=True, check=False
        )

    return run


def test_prometheus_accepts_the_rules(
    promtool: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ran = promtool("check", "rules", RULES.name)
    assert ran.returncode == 0, ran.stderr


def test_each_alarm_fires_on_what_it_is_for_and_not_on_a_sound_system(
    promtool: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ran = promtool("test", "rules", "rules.test.yml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    alarms = set(re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8")))
    tested = set(re.findall(r'alertname="(\w+)"', (RULES.parent / "rules.test.yml").read_text()))
    assert alarms
    assert alarms == tested


def test_every_alarm_says_what_it_is_and_what_to_do() -> None:
    text = RULES.read_text(encoding="utf-8")
    alarms = text.count("- alert: ")
    assert alarms
    for part in ("expr:", "severity:", "summary:", "action:"):
        assert text.count(part) == alarms, part


def test_the_runbook_says_what_to_do_for_each_alarm() -> None:
    page = (OPS.parent / "docs" / "operations.md").read_text(encoding="utf-8")
    alarms = re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8"))
    assert re.findall(r"^\| `(Nabij\w+)` \|", page, re.MULTILINE) == alarms


def named() -> Iterator[str]:
    """The metrics in rules and dashboard, of ours."""
    texts = [RULES.read_text(encoding="utf-8")]
    texts += [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    for text in texts:
        yield from re.findall(r"\bnabij_[a-z_]+", text)


def test_every_metric_that_is_named_is_exported_and_has_a_value(start: Callable[..., Up]) -> None:
    up = start()
    said = up.ready()
    text = get(f"{said['http']}/metrics")[1]
    families = list(text_string_to_metric_families(text))
    exported = {sample.name for family in families for sample in family.samples}
    # Without an escalation that waits there is no zone to show.
    exported |= {family.name for family in families if family.name.endswith("undelivered_seconds")}
    wanted = set(named())
    assert len(wanted) > 20
    assert wanted - exported == set()
    assert up.end() == 0


def test_the_dashboard_has_what_grafana_needs() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    [variable] = DASHBOARD["templating"]["list"]
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"]["uid"] == f"${{{variable['name']}}}"
        assert panel["targets"]
        assert panel["title"]


def test_every_expression_of_the_dashboard_is_one_of_prometheus(
    promtool: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    expressions = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    rules = [{"record": f"one:{number}", "expr": expr} for number, expr in enumerate(expressions)]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    ran = promtool("check", "rules", "--lint=none", str(path))
    assert ran.returncode == 0, ran.stderr
