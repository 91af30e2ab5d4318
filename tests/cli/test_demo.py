"""The demonstration, whole: every process, the crowd, the desks."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path


def test_demo_once_tells_what_happened_and_ends_well() -> None:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("NABIJ_")}
    ran = subprocess.run(
        [sys.executable, "-m", "nabij.cli", "demo", "--once", "--json", "--seed", "5"],
        env=kept,
        capture_output=True,
        text=True,
        timeout=120,
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


def test_the_demo_tells_one_story_whose_incident_can_be_explained_and_sums_up_at_ctrl_c(
    tmp_path: Path,
) -> None:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("NABIJ_")}
    environment = {**kept, "TMPDIR": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "home")}
    nabij = [sys.executable, "-m", "nabij.cli"]
    demo = subprocess.Popen(
        [*nabij, "demo", "--participants", "40"], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        story = told(demo, "nabij explain ")
        for step in (
            "1 The witness",
            "2 The neighbour",
            "3 The police",
            "4 The group",
            "5 The end",
        ):
            assert step in story
        assert re.search(r"“Fire, 1\d\d m from you\. Call 112", one_line(story))
        short = story.rpartition("nabij explain ")[2].strip()
        for user, alerted in (("bob", True), ("cleo", False)):
            explained = subprocess.run(
                [*nabij, "explain", short, user, "--json"],
                env=environment,
                capture_output=True,
                text=True,
                timeout=30,
                check=True,
            )
            assert json.loads(explained.stdout)["alerted"] is alerted
        told(demo, "police    ")  # the lively city's first, after a report of its own
    finally:
        demo.send_signal(signal.SIGINT)
        _, rest = demo.communicate(timeout=45)
    assert demo.returncode == 0
    summary = re.search(r"(\d+) reports?, (\d+) incidents? and \d+ for the city", one_line(rest))
    assert summary, rest
    assert int(summary[1]) >= int(summary[2]) > 0
    assert "Traceback" not in story + rest


def told(demo: "subprocess.Popen[str]", word: str) -> str:
    """What it says until a line has this word."""
    assert demo.stderr
    said = ""
    for line in demo.stderr:
        said += line
        if word in line:
            return said
    raise AssertionError(said[-2000:])


def one_line(text: str) -> str:
    """The text without its line breaks, which depend on the width and on the figures in it."""
    return " ".join(text.split())
