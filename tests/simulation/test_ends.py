"""A conversation with a desk that does not end by its own silence is seen in the simulated worlds."""

import pytest

import services.groups
from broker.core.escalation import silence
from verify.simulation.simulation_run import first_failing

WITHIN = 60  # seeds


@pytest.mark.parametrize(
    ("factor", "invariant", "told"),
    [(0.5, "I3", "before its silence was over"), (2.0, "I5", "after its own silence was over")],
)
def test_a_conversation_that_ends_early_or_late_is_seen(
    monkeypatch: pytest.MonkeyPatch, factor: float, invariant: str, told: str
) -> None:
    monkeypatch.setattr(services.groups, "silence", lambda *given: factor * silence(*given))

    found = first_failing(range(WITHIN))

    assert found is not None
    assert {violation.invariant for violation in found[1]} == {invariant}
    assert all(told in violation.what for violation in found[1])
