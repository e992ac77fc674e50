"""Every probe of a gate has an outcome: whatever happened before, the gate lets a request through some time later."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.failures.errors import Throttled, Transient
from common.failures.retry import Backoff
from stages.embedder.calling.gate import Gate
from stages.embedder.providers import (
    BadInput,
    NeedsOperator,
    NoModelYet,
    ProviderServerError,
    UnknownModel,
)
from stages.embedder.providers.sending import NotCoveredError
from tests.embedder.fakes import Clock

LONGEST_CLOSED_S = 130.0
"""The longest cooldown of a breaker, and the minute in which no more than ten probes are wasted."""
MODELS = ["a", "b"]
ERRORS: list[Exception | None] = [
    None,
    Transient("503"),
    Throttled("429", 3.0),
    BadInput("400"),
    BadInput("no such model `a`"),
    ProviderServerError("500"),
    NeedsOperator("401"),
    NeedsOperator("403", model_only=True),
    UnknownModel("no such model"),
    NoModelYet("fetching", 2.0),
    NotCoveredError("late"),
    ZeroDivisionError(),
]


def request(gate: Gate, model: str, error: Exception | None, *, is_canary: bool = False) -> bool:
    """Make a request with this outcome; False if the gate is closed."""
    if (gate.enter_canary if is_canary else gate.enter)(model):
        return False
    if error is None:
        with gate.outcome(model, is_canary=is_canary):
            return True
    with pytest.raises(type(error)), gate.outcome(model, is_canary=is_canary):
        raise error
    return True


@given(
    st.lists(
        st.tuples(
            st.sampled_from(MODELS),
            st.sampled_from(ERRORS),
            st.booleans(),
            st.sampled_from([0.0, 0.5, 3.0, 61.0]),
        ),
        max_size=30,
    ),
    st.sampled_from(MODELS),
    st.booleans(),
)
def test_a_gate_lets_a_request_through_within_two_minutes_whatever_happened_before(
    history: list[tuple[str, Exception | None, bool, float]], model: str, is_canary: bool
) -> None:
    clock = Clock()
    gate = Gate("gated", 3, Backoff(first=2.0, factor=2.0, longest=60.0), clock)
    for name, error, of_canary, later_s in history:
        request(gate, name, error, is_canary=of_canary)
        clock.mono += later_s
    clock.mono += LONGEST_CLOSED_S
    assert request(gate, model, None, is_canary=is_canary)
    assert gate.reasons()[0] == ""
