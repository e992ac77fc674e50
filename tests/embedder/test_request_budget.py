"""Under a quota, a batch keeps to its request budget, and the remaining texts return until all are settled."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.failures.errors import Throttled, Transient
from common.task_types import Deferral, token_count
from common.wire.messages import Failure
from stages.embedder.calling.evidence import CANARY
from stages.embedder.calling.request_budget import MAX_TRANSIT_S
from stages.embedder.engine import EmbeddingEngine
from stages.embedder.providers import AskAgain, BadInput, Embeddings, NotSent, ProviderServerError
from tests.embedder.fakes import MODEL, Clock, ScriptedProvider, are_vectors, engine, poisoned, true_answer

TEXTS = [f"text {number}" for number in range(8)]
MOST_BATCHES = 500


class Charged:
    """Forms batches as the rate limiter does: each with the same request budget; remaining texts form new batches."""

    def __init__(self, shared: EmbeddingEngine, requests: int) -> None:
        self.shared = shared
        self.requests = requests
        self.outcomes: dict[str, object] = {}
        self.batches = 0

    def embed(self, texts: list[str]) -> dict[str, object]:
        waiting = deque([texts])
        while waiting and self.batches < MOST_BATCHES:
            waiting.extendleft(reversed(self.batch(waiting.popleft())))
        assert not waiting, "the batches never end"
        return self.outcomes

    def batch(self, texts: list[str]) -> list[list[str]]:
        self.batches += 1
        session, provider = self.shared.session(self.requests), self.shared._backends[0].provider
        assert isinstance(provider, ScriptedProvider)
        before = len(provider.paid)
        left: dict[int, list[str]] = {}
        for text, outcome in zip(texts, session.embed(MODEL, texts), strict=True):
            if isinstance(outcome, Deferral) and outcome.at_most:
                left.setdefault(outcome.at_most, []).append(text)
            else:
                self.outcomes[text] = outcome
        assert session.requests <= self.requests
        assert len(provider.paid) - before <= len(texts), "more than the batch was charged for, canaries included"
        return [group[at : at + most] for most, group in left.items() for at in range(0, len(group), most)]


@given(count=st.integers(1, 64), most=st.integers(1, 8), data=st.data())
def test_halving_over_many_batches_finds_all_bad_texts_and_pays_once_for_each_good_text(
    count: int, most: int, data: st.DataObject
) -> None:
    texts = [f"text {number}" for number in range(count)]
    bad = data.draw(st.sets(st.sampled_from(texts), max_size=min(count, 5)))
    provider = ScriptedProvider()
    provider.always = poisoned(bad)
    outcomes = Charged(engine(provider), most).embed(texts)
    assert Counter(text for text in provider.paid if text != CANARY) == Counter(set(texts) - bad)
    assert {text for text, outcome in outcomes.items() if isinstance(outcome, Failure)} == bad
    most_refused = 2 * len(bad) * (math.ceil(math.log2(count)) or 1)
    assert len(provider.sent) <= 1 + most_refused + 2 * len(bad), "a batch may end before the evidence is there"


@given(count=st.integers(1, 40), largest=st.integers(1, 20), most=st.integers(1, 8), data=st.data())
def test_no_batch_sends_more_texts_than_it_was_charged_for_whatever_is_refused(
    count: int, largest: int, most: int, data: st.DataObject
) -> None:
    texts = [f"text {number}" for number in range(count)]
    bad = data.draw(st.sets(st.sampled_from(texts), max_size=min(count, 5)))
    provider = ScriptedProvider()
    is_bad = poisoned(bad)
    provider.always = lambda sent: BadInput("too many texts") if len(sent) > largest else is_bad(sent)
    outcomes = Charged(engine(provider), most).embed(texts)
    assert {text for text, outcome in outcomes.items() if isinstance(outcome, Failure)} == bad


@pytest.mark.parametrize("most", [1, 2, 8])
def test_a_text_on_which_the_provider_fails_is_found_within_the_budgets_of_several_batches(most: int) -> None:
    provider = ScriptedProvider()
    provider.always = lambda texts: ProviderServerError("500") if TEXTS[5] in texts else None
    shared = engine(provider, circuit_breaker_threshold=1000)
    outcomes = Charged(shared, most).embed(TEXTS)
    assert [isinstance(outcomes[text], np.ndarray) for text in TEXTS] == [number != 5 for number in range(8)]
    assert isinstance(outcomes[TEXTS[5]], Failure), "it was refused alone MAX_RETRIES times while others were served"


@pytest.mark.parametrize("most", [1, 2, 8])
def test_rejected_vectors_are_asked_for_once_more_in_a_later_batch_and_then_fail(most: int) -> None:
    provider = ScriptedProvider()

    def spoiled(texts: Sequence[str]) -> Embeddings | None:
        return None if texts == [CANARY] else Embeddings(np.full((len(texts), 8), np.nan, np.float32), 1)

    provider.always = spoiled
    outcomes = Charged(engine(provider), most).embed(TEXTS)
    assert all(isinstance(outcome, Failure) and outcome.code == "invalid_vector" for outcome in outcomes.values())
    sent = Counter(text for texts in provider.requests for text in texts)
    assert sent.pop(CANARY) == 1
    assert sent == dict.fromkeys(TEXTS, 2)


def test_a_vector_that_is_good_the_second_time_is_accepted() -> None:
    answer = true_answer(TEXTS)
    answer.matrix[3] = np.nan
    provider = ScriptedProvider(answer)
    outcomes = Charged(engine(provider), 8).embed(TEXTS)
    assert all(are_vectors(outcomes.values()))
    assert [len(texts) for texts in provider.requests] == [8, 1]


def test_a_provider_that_always_leaves_out_a_text_is_asked_a_bounded_number_of_times() -> None:
    provider = ScriptedProvider()
    provider.always = lambda texts: None if texts == [CANARY] else true_answer(texts[1:])
    outcomes = Charged(engine(provider), 1).embed(TEXTS)
    assert all(isinstance(outcome, Failure) for outcome in outcomes.values())


def test_texts_that_may_have_been_paid_for_are_not_sent_again_on_the_same_charge() -> None:
    provider = ScriptedProvider(Transient("cut"))
    session = engine(provider).session(8)
    outcomes = session.embed(MODEL, TEXTS)
    assert len(provider.requests) == 1
    assert session.tokens == sum(token_count.bound(text) for text in TEXTS)
    for outcome in outcomes:
        assert isinstance(outcome, Deferral)
        assert (outcome.unsent, outcome.at_most) == (False, 0)


@pytest.mark.parametrize("error", [NotSent("no connection"), Throttled("429", 0.5)])
def test_texts_that_certainly_were_not_paid_for_are_retried_within_the_charge(error: Transient) -> None:
    provider = ScriptedProvider(error)
    session = engine(provider).session(2)
    assert all(are_vectors(session.embed(MODEL, TEXTS)))
    assert (session.requests, session.tokens) == (2, true_answer(TEXTS).tokens)

    provider = ScriptedProvider(error)
    spent = engine(provider).session(1)
    assert all(isinstance(outcome, Deferral) and outcome.unsent for outcome in spent.embed(MODEL, TEXTS))
    assert (spent.requests, spent.tokens) == (1, 0)


def test_a_request_that_is_repeated_in_another_form_counts_against_the_budget() -> None:
    provider = ScriptedProvider(AskAgain("without dimensions"))
    charged = Charged(engine(provider), 1)
    assert all(are_vectors(charged.embed(TEXTS).values()))
    assert charged.batches == len(provider.requests) == 2


def test_texts_that_one_provider_may_have_been_paid_for_are_not_sent_to_another() -> None:
    first, second = ScriptedProvider(name="first"), ScriptedProvider(name="second")
    first.always = Transient("cut")
    shared = engine(first, second, processing_mode="hybrid", max_retries=0)
    outcomes = shared.session(8).embed(MODEL, TEXTS)
    assert all(isinstance(outcome, Deferral) for outcome in outcomes)
    assert second.requests == []


def test_without_a_quota_the_number_of_requests_is_unlimited() -> None:
    provider = ScriptedProvider(Transient("cut"))
    session = engine(provider).session()
    assert all(are_vectors(session.embed(MODEL, TEXTS)))
    assert session.requests == 2


def test_refused_texts_are_counted_and_cost_no_request() -> None:
    session = engine(ScriptedProvider()).session(8)
    session.embed(MODEL, ["", "fine", " "])
    assert (session.refused, session.cached, session.requests) == (2, 0, 1)


def test_the_time_by_which_a_request_had_reached_its_provider_is_known_within_half_a_second() -> None:
    clock = Clock()

    def slow(seconds: float) -> ScriptedProvider:
        provider = ScriptedProvider()
        provider.always = lambda _: setattr(clock, "mono", clock.mono + seconds)
        return provider

    for seconds, reached in ((0.2, 0.2), (30.0, MAX_TRANSIT_S)):
        began = clock.mono
        session = engine(slow(seconds), clock=clock).session(8)
        assert session.reached_at == 0.0
        session.embed(MODEL, TEXTS)
        assert session.reached_at == pytest.approx(began + reached)
