"""Whether one model or the whole provider is refused, who is told, and how many requests are wasted meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from common.failures.errors import Transient
from common.task_types import Deferral
from common.wire.messages import Failure
from stages.embedder.calling.probes import MOST_PER_MINUTE, UNKNOWN_MODEL_S, WastedRequests
from stages.embedder.engine import EmbeddingEngine
from stages.embedder.providers import BadInput, Embeddings, NeedsOperator, UnknownModel
from tests.embedder.fakes import Clock, ScriptedProvider, are_vectors, engine

BUDGET = BadInput("budget exceeded")


class ByModel(ScriptedProvider):
    """A provider that refuses single models."""

    def __init__(self, **refused: Exception) -> None:
        super().__init__(name="openai")
        self.refused = refused

    def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        self.always = self.refused.get(model)
        return super().embed(model, texts)


def is_deferred(shared: EmbeddingEngine, model: str) -> bool:
    return isinstance(shared.session().embed(model, ["a text"])[0], Deferral)


def is_served(shared: EmbeddingEngine, model: str) -> bool:
    return are_vectors(shared.session().embed(model, ["a text"])) == [True]


@pytest.mark.parametrize("error", [BUDGET, NeedsOperator("401"), UnknownModel("no such model")])
def test_a_model_that_is_refused_waits_alone_while_another_is_served(error: Exception) -> None:
    shared = engine(ByModel(bad=error))
    assert is_served(shared, "good")
    for _ in range(3):
        assert is_deferred(shared, "bad")
        assert is_served(shared, "good")
    assert shared.blockers() == []
    assert any(notice.startswith("bad: ") and str(error) in notice for notice in shared.notices())


def test_the_provider_is_at_fault_when_several_models_are_refused_and_none_is_served() -> None:
    shared = engine(ByModel(one=BUDGET, two=BUDGET))
    assert is_deferred(shared, "one")
    assert is_deferred(shared, "two")
    (blocker,) = shared.blockers()
    assert blocker.startswith("openai: ")
    assert "budget exceeded" in blocker


def test_an_outage_that_hits_one_model_only_does_not_stop_the_others() -> None:
    shared = engine(ByModel(bad=Transient("502")), circuit_breaker_threshold=2, max_retries=0)
    for _ in range(9):
        assert is_served(shared, "good")
        assert is_deferred(shared, "bad")
    assert is_served(shared, "good")


def test_what_one_embedder_learns_from_a_refusal_stops_the_others() -> None:
    clock = Clock()
    first, second = ByModel(bad=UnknownModel("no such model")), ByModel()
    one, other = engine(first, clock=clock), engine(second, clock=clock)
    assert is_deferred(one, "bad")
    told = one.provider_cooldowns(clock())
    assert list(told) == ["openai bad"]
    other.apply_cooldowns(told, clock())
    assert is_deferred(other, "bad")
    assert second.requests == []
    assert is_served(other, "good")
    assert other.key_cooldowns(clock().wall)["bad"] >= one.key_cooldowns(clock().wall)["bad"] + 0.4
    clock.mono += 10
    assert is_served(other, "bad")


def test_a_provider_that_refuses_everything_is_told_to_the_other_embedders() -> None:
    clock = Clock()
    one, other = engine(ByModel(bad=BUDGET), clock=clock), engine(ByModel(), clock=clock)
    assert is_deferred(one, "bad")
    other.apply_cooldowns(one.provider_cooldowns(clock()), clock())
    assert other.key_cooldowns(clock().wall).keys() == {"*"}
    assert other.blockers()
    assert is_deferred(other, "any")


def test_an_outage_is_not_told_to_the_other_embedders() -> None:
    clock = Clock()
    one = engine(ByModel(bad=Transient("down")), clock=clock, circuit_breaker_threshold=1, max_retries=0)
    assert is_deferred(one, "bad")
    assert one.provider_cooldowns(clock()) == {}


def test_at_most_ten_requests_a_minute_are_wasted_however_many_models_are_refused() -> None:
    clock = Clock()
    models = [f"model {number}" for number in range(8)]
    provider = ByModel(**{model: UnknownModel("no such model") for model in models})
    shared = engine(provider, clock=clock)
    for _ in range(600):
        for model in models:
            assert is_deferred(shared, model)
        clock.mono += 0.5
    assert len(provider.requests) <= len(models) + 5 * MOST_PER_MINUTE


def test_wasted_requests_are_counted_for_a_minute_or_until_their_scope_is_served() -> None:
    wasted = WastedRequests()
    for number in range(MOST_PER_MINUTE):
        assert wasted.next_probe_at(100.0 + number) == 0.0
        wasted.add("one" if number else "two", 100.0 + number)
    assert wasted.next_probe_at(120.0) == 160.0
    assert wasted.next_probe_at(160.0) == 0.0
    wasted.works("three")
    assert wasted.next_probe_at(120.0) == 160.0
    wasted.works("two")
    assert wasted.next_probe_at(120.0) == 0.0


def hours_of(shared: EmbeddingEngine, clock: Clock, hours: float) -> object:
    """The outcome of a task of an unknown model that has been asked for this long, every 100 seconds."""
    end = clock.mono + hours * UNKNOWN_MODEL_S
    while clock.mono <= end:
        (outcome,) = shared.session().embed("bad", ["a text"])
        clock.mono += 100
    return outcome


@pytest.mark.parametrize("error", [UnknownModel("no such model"), BadInput("bad is unknown")])
def test_tasks_of_an_unknown_model_fail_after_an_hour_if_they_may(error: Exception) -> None:
    if isinstance(error, BadInput):
        error.names_model = error.names_unknown_model = True
    clock = Clock()
    shared = engine(ByModel(bad=error), clock=clock, unknown_model="fail")
    assert isinstance(hours_of(shared, clock, 0.9), Deferral)
    outcome = hours_of(shared, clock, 0.2)
    assert isinstance(outcome, Failure)
    assert outcome.code == "unknown_model"
    assert str(error) in outcome.message
    assert shared.key_cooldowns(clock().wall) == {}, "its tasks are given to the embedder, so that they end"


def test_tasks_of_an_unknown_model_wait_for_ever_by_default_and_a_model_that_is_there_again_is_served() -> None:
    clock = Clock()
    provider = ByModel(bad=UnknownModel("no such model"))
    shared = engine(provider, clock=clock)
    assert isinstance(hours_of(shared, clock, 30), Deferral)
    provider.refused.clear()
    assert is_served(shared, "bad")


def test_a_budget_that_is_used_up_for_hours_fails_nothing() -> None:
    clock = Clock()
    shared = engine(ByModel(bad=BUDGET), clock=clock, unknown_model="fail")
    assert isinstance(hours_of(shared, clock, 30), Deferral)
