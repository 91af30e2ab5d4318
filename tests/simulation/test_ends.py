"""A conversation with a desk that ends before its own silence is over is seen in simulated worlds.

One that ends too late outlives its silence by seconds only in a world: tests/chaos/test_ends.py.
"""

import pytest

import services.groups
from broker.core.escalation import silence
from verify.simulation.simulation_run import first_failing

WITHIN = 60  # seeds


def test_a_conversation_that_ends_early_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services.groups, "silence", lambda *given: 0.5 * silence(*given))

    found = first_failing(range(WITHIN))

    assert found is not None
    assert {violation.invariant for violation in found[1]} == {"I3"}
    assert all("before its silence was over" in violation.what for violation in found[1])
