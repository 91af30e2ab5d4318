"""A service is named once: everything that runs, watches or kills services finds it by that."""

import re
from pathlib import Path

import services
from broker.core.changes import READERS
from schemas.topics import TOPICS
from verify.chaos.plan import SERVICES as VICTIMS

REPOSITORY = Path(__file__).parents[2]


def test_every_file_of_a_service_is_listed() -> None:
    files = {path.stem for path in (REPOSITORY / "services").glob("*.py")} - {"__init__"}
    assert files == set(services.ALL)


def test_every_service_is_one_of_that_name() -> None:
    assert [services.load(name).name for name in services.ALL] == list(services.ALL)


def test_each_service_that_handles_events_has_a_stream_and_no_other() -> None:
    assert set(READERS) == {name for name in services.ALL if services.load(name).event_handlers}


def test_every_topic_from_outside_has_the_service_that_the_contract_names() -> None:
    read = {
        sub.topic.template: name
        for name in services.ALL
        for sub in services.load(name).subscriptions
    }
    assert read == {topic.template: topic.service for topic in TOPICS if topic.is_received}


def test_chaos_kills_every_service() -> None:
    assert {str(victim) for victim in VICTIMS} == set(services.ALL)


def test_the_readme_names_every_service() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    line = re.search(r"^services/ .*one file each: (.*)$", readme, re.MULTILINE)
    assert line
    assert set(line[1].split()) == set(services.ALL)
