"""A history made by hand, for what the oracle makes of it."""

import pytest

from tests.replay.story import HERE, Story
from verify.oracle.history import SentReport


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def theft(story: Story) -> SentReport:
    """Ann reports a theft (300 m) 200 m from Bob, who is alerted; the police acknowledge."""
    story.presence(1, HERE, at=-10.0)
    theft = story.theft(200.0)
    story.alert(1, theft)
    return theft
