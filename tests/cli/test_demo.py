"""The demonstration, whole: every process, the crowd, the desks."""

import json
import os
import subprocess
import sys


def test_demo_once_tells_what_happened_and_ends_well() -> None:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("NABIJ_")}
    ran = subprocess.run(
        [sys.executable, "-m", "nabij.cli", "demo", "--once", "--json", "--seed", "5"],
        env=kept,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    said = json.loads(ran.stdout)
    assert said["problems"] == []
    assert said["escalations"] + said["cases"] == said["reports"]
    assert said["incidents"] < said["reports"]
    assert min(said[key] for key in ("alerts", "accepted", "groups", "closed")) > 0
    assert 0 < said["police_p50_ms"] <= said["police_p99_ms"]
    assert 0 < said["alert_p50_ms"] <= said["alert_p99_ms"]
    assert "Traceback" not in ran.stderr
