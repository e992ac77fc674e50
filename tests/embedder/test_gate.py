"""The gate of a provider: its circuit breaker, its cooldown, and single models."""

from __future__ import annotations

import threading

import pytest

from common.failures.errors import Throttled, Transient
from common.failures.retry import Backoff
from common.process import metrics
from stages.embedder.calling.gate import PROBE_POLL_S, Gate
from stages.embedder.providers import BadInput, NeedsOperator, NoModelYet, ProviderServerError
from tests.embedder.fakes import Clock

BACKOFF = Backoff(first=2.0, factor=2.0, longest=60.0)


def call(gate: Gate, error: BaseException | None = None, model: str = "a") -> bool:
    """Make a request with this outcome; False if the gate is closed."""
    if gate.enter(model):
        return False
    if error is None:
        with gate.outcome(model):
            return True
    with pytest.raises(type(error)), gate.outcome(model):
        raise error
    return True


def wait_for_probe(gate: Gate, clock: Clock) -> None:
    """Fail until the gate closes, and wait until it lets one request through."""
    for _ in range(3):
        call(gate, Transient("down"))
    clock.mono += 2


def state(gate: Gate) -> float | None:
    return metrics.REGISTRY.get_sample_value("circuit_breaker_state", {"service": gate.service})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate("gated", 3, BACKOFF, clock)


def test_failures_in_a_row_close_the_gate_and_one_successful_probe_opens_it(gate: Gate, clock: Clock) -> None:
    for _ in range(2):
        assert call(gate, Transient("502"))
    assert call(gate)
    for _ in range(3):
        assert call(gate, Transient("down"))
    assert not call(gate)
    assert state(gate) == 1
    assert gate.reasons()[0] == "down"
    clock.mono += 2
    assert gate.enter("a") == 0
    assert state(gate) == 2
    assert gate.enter("a") == pytest.approx(clock.mono + PROBE_POLL_S), "a second probe"
    with gate.outcome("a"):
        pass
    assert state(gate) == 0
    assert call(gate)
    assert gate.reasons() == ("", {})


def test_after_a_failed_probe_the_gate_stays_closed_for_longer(gate: Gate, clock: Clock) -> None:
    wait_for_probe(gate, clock)
    assert call(gate, Transient("still down"))
    clock.mono += 1.9
    assert not call(gate)
    clock.mono += 2.1
    assert call(gate)


def test_a_throttled_probe_counts_as_a_failed_probe(gate: Gate, clock: Clock) -> None:
    wait_for_probe(gate, clock)
    assert call(gate, Throttled("busy", 30))
    assert not call(gate)
    clock.mono += 30
    assert call(gate)


def test_an_error_that_needs_an_operator_closes_the_gate_at_once(gate: Gate) -> None:
    assert call(gate, NeedsOperator("the key is refused"))
    assert not call(gate)
    assert gate.reasons()[0] == "the key is refused"


def test_a_cooldown_holds_for_all_models_and_does_not_count_as_a_failure(gate: Gate, clock: Clock) -> None:
    for _ in range(5):
        clock.mono += 10
        assert call(gate, Throttled("429", 10))
        assert not call(gate, model="b")
    assert not gate.is_broken()
    gate.cool_down(3, "shorter")
    clock.mono += 9.9
    assert not call(gate)
    clock.mono += 0.2
    assert call(gate)


@pytest.mark.parametrize("error", [NeedsOperator("no such model", model_only=True), NoModelYet("fetching: 3 %", 2)])
def test_a_model_that_cannot_be_served_does_not_close_the_gate_for_other_models(
    gate: Gate, clock: Clock, error: Exception
) -> None:
    assert call(gate, error)
    assert gate.reasons() == ("", {"a": str(error)})
    assert not call(gate)
    assert call(gate, model="b")
    assert gate.is_broken("a")
    assert not gate.is_broken("b")
    clock.mono += 2
    assert call(gate)
    assert gate.reasons() == ("", {})


def test_the_number_of_remembered_models_is_bounded(gate: Gate) -> None:
    for number in range(1100):
        call(gate, NeedsOperator("no", model_only=True), f"model {number}")
    assert len(gate.reasons()[1]) == 1000


@pytest.mark.parametrize("error", [BadInput("no"), ProviderServerError("500")])
def test_a_refused_request_is_neither_a_success_nor_a_failure(gate: Gate, error: Exception) -> None:
    for _ in range(2):
        call(gate, Transient("down"))
    for _ in range(9):
        assert call(gate, error)
    call(gate, Transient("down"))
    assert not call(gate), "the third failure in a row"


def test_an_unexpected_exception_counts_as_a_failure_and_its_text_is_not_shown(gate: Gate, clock: Clock) -> None:
    for _ in range(3):
        call(gate, ZeroDivisionError("secret text"))
    assert gate.reasons()[0] == "ZeroDivisionError"
    clock.mono += 2
    assert call(gate, ZeroDivisionError())
    clock.mono += 4
    assert call(gate)


def test_of_many_threads_one_sends_the_probe(gate: Gate, clock: Clock) -> None:
    wait_for_probe(gate, clock)
    entered: list[float] = []
    threads = [threading.Thread(target=lambda: entered.append(gate.enter("a"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entered.count(0) == 1
