"""A batch whose provider refuses, fails, or returns unusable vectors; without a network and without waiting."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.failures.errors import Permanent, Throttled, Transient
from common.task_types import Deferral
from common.wire.messages import Failure
from stages.embedder.calling.evidence import CANARY
from stages.embedder.calling.provider_call import ISOLATED_RETRY_S, MAX_WAIT_S
from stages.embedder.providers import (
    BadInput,
    Embeddings,
    NeedsOperator,
    NoModelYet,
    NotSent,
    ProviderServerError,
)
from tests.embedder.fakes import MODEL, Clock, ScriptedProvider, are_vectors, engine, poisoned, true_answer

TEXTS = [f"text {number}" for number in range(8)]


@given(count=st.integers(1, 200), data=st.data())
def test_halving_finds_all_bad_texts_and_pays_once_for_each_good_text(count: int, data: st.DataObject) -> None:
    texts = [f"text {number}" for number in range(count)]
    bad = data.draw(st.sets(st.sampled_from(texts), max_size=min(count, 12)))
    provider = ScriptedProvider()
    provider.always = poisoned(bad)
    session = engine(provider).session()

    outcomes = session.embed(MODEL, texts)

    assert Counter(provider.paid) - Counter({CANARY: 999}) == Counter(text for text in texts if text not in bad)
    for text, outcome in zip(texts, outcomes, strict=True):
        if text in bad:
            expected = Failure("refused_by_provider", "scripted refused the text: cannot be read")
            assert outcome == expected
        else:
            assert isinstance(outcome, np.ndarray)
            assert np.array_equal(outcome, true_answer([text]).matrix[0])
    assert session.requests == len(provider.requests)
    assert len(provider.sent) <= 1 + 2 * len(bad) * (math.ceil(math.log2(count)) or 1)
    assert provider.canaries <= 2 + len(provider.sent) / 4


def test_a_cap_learned_from_one_batch_splits_the_next_batch_before_it_is_sent() -> None:
    provider = ScriptedProvider()
    provider.always = lambda texts: BadInput("no reason") if len(texts) > 3 else None
    shared = engine(provider)
    shared.session().embed(MODEL, TEXTS)
    refused = [len(texts) for texts in provider.requests if len(texts) > 3]
    assert refused == [8, 4]
    provider.requests.clear()
    outcomes = shared.session().embed(MODEL, [f"other {number}" for number in range(8)])
    assert all(are_vectors(outcomes))
    assert [len(texts) for texts in provider.requests] == [2, 2, 2, 2]


@pytest.mark.parametrize("error", [Transient("502"), NotSent("no connection"), Throttled("429", 0.5)])
def test_a_transient_error_is_retried_and_fails_no_text(error: Transient) -> None:
    provider, clock = ScriptedProvider(error, error), Clock()
    outcomes = engine(provider, clock=clock).session().embed(MODEL, TEXTS)
    assert all(are_vectors(outcomes))
    assert len(provider.requests) == 3
    assert clock.waits[0] < clock.waits[1] or isinstance(error, Throttled)


@pytest.mark.parametrize("unsent", [True, False])
def test_after_max_retries_the_texts_are_deferred(unsent: bool) -> None:
    provider, clock = ScriptedProvider(), Clock()
    error = NotSent("no connection") if unsent else Transient("cut")
    provider.always = error
    session = engine(provider, clock=clock, max_retries=2, circuit_breaker_threshold=100).session()
    outcomes = session.embed(MODEL, TEXTS)
    assert len(provider.requests) == 3
    for outcome in outcomes:
        assert isinstance(outcome, Deferral)
        assert outcome.unsent is unsent
        assert outcome.until > clock().wall


def test_vectors_from_before_an_outage_are_kept() -> None:
    provider = ScriptedProvider(None, inputs=4)
    provider.always = Transient("down")
    outcomes = engine(provider, max_retries=0).session().embed(MODEL, TEXTS)
    assert are_vectors(outcomes) == [True] * 4 + [False] * 4
    assert all(isinstance(outcome, Deferral) for outcome in outcomes[4:])


@pytest.mark.parametrize(
    "error",
    [
        NeedsOperator("the key is refused"),
        NeedsOperator("no such model", model_only=True),
        NoModelYet("fetching", 3.0),
    ],
)
def test_an_error_that_waiting_does_not_repair_is_not_retried(error: Exception) -> None:
    provider, clock = ScriptedProvider(error), Clock()
    shared = engine(provider, clock=clock)
    outcomes = shared.session().embed(MODEL, TEXTS)
    assert len(provider.requests) == 1
    unsent = isinstance(error, NoModelYet)
    assert all(isinstance(outcome, Deferral) and outcome.unsent is unsent for outcome in outcomes)
    assert shared.key_cooldowns(clock().wall)
    assert str(error) in " ".join(shared.blockers())
    again = shared.session()
    assert all(isinstance(outcome, Deferral) and outcome.unsent for outcome in again.embed(MODEL, TEXTS))
    assert again.requests == 0


def test_only_the_text_on_which_the_provider_fails_is_failed_and_the_breaker_does_not_hear_of_it() -> None:
    provider, clock = ScriptedProvider(), Clock()
    provider.always = lambda texts: ProviderServerError("500: EOF") if "text 77" in texts else None
    shared = engine(provider, clock=clock)
    texts = [f"text {number}" for number in range(256)]
    outcomes = shared.session().embed(MODEL, texts)
    assert [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, np.ndarray)] == [77]
    assert outcomes[77] == Failure("refused_by_provider", "scripted fails on the text: 500: EOF")
    assert sum(texts == ["text 77"] for texts in provider.requests) == 1 + 3, "found alone, then MAX_RETRIES"
    assert provider.canaries <= 4
    assert sum(clock.waits) <= MAX_WAIT_S
    assert (shared.blockers(), shared.notices()) == ([], [])
    paid = [text for text in provider.paid if text != CANARY]
    assert len(paid) == len(set(paid)) == 255


def test_a_provider_that_fails_on_every_text_opens_its_breaker() -> None:
    provider = ScriptedProvider()
    provider.always = ProviderServerError("500")
    shared = engine(provider)
    outcomes = shared.session().embed(MODEL, TEXTS)
    assert all(isinstance(outcome, Deferral) for outcome in outcomes)
    assert (len(provider.sent), provider.canaries) == (2, 1)
    assert "500" in shared.blockers()[0]


def test_a_batch_is_deferred_instead_of_waiting_long_in_its_slot() -> None:
    provider, clock = ScriptedProvider(Throttled("429", 60.0)), Clock()
    shared = engine(provider, clock=clock)
    outcomes = shared.session().embed(MODEL, TEXTS)
    assert sum(clock.waits) <= MAX_WAIT_S
    first = outcomes[0]
    assert isinstance(first, Deferral)
    assert first.until - clock().wall == pytest.approx(60, abs=0.1)
    assert shared.key_cooldowns(clock().wall) == {"*": pytest.approx(clock().wall + 60)}


def test_any_other_refusal_fails_the_texts_of_the_request_with_its_code() -> None:
    provider = ScriptedProvider(Permanent("no thanks", "no_thanks"))
    outcomes = engine(provider).session().embed(MODEL, TEXTS)
    assert outcomes == [Failure("no_thanks", "no thanks")] * 8


def test_a_response_without_a_token_count_is_charged_with_the_bytes_of_its_texts() -> None:
    provider = ScriptedProvider(lambda texts: true_answer(texts)._replace(tokens=0))
    session = engine(provider).session()
    session.embed(MODEL, ["äöü"])
    assert session.tokens == 6


def with_bad_row(row: int, value: float, texts: Sequence[str] = TEXTS) -> Embeddings:
    answer = true_answer(texts)
    answer.matrix[row] = value
    return answer


@pytest.mark.parametrize(("value", "reason"), [(math.nan, "not finite"), (math.inf, "not finite"), (0.0, "zero")])
def test_only_the_text_with_a_bad_vector_is_sent_once_more(value: float, reason: str) -> None:
    provider = ScriptedProvider(with_bad_row(2, value))
    outcomes = engine(provider).session().embed(MODEL, TEXTS)
    assert all(are_vectors(outcomes))
    assert provider.requests[1:] == [[TEXTS[2]]]

    provider = ScriptedProvider(with_bad_row(2, value), with_bad_row(0, value, TEXTS[2:3]))
    outcomes = engine(provider).session().embed(MODEL, TEXTS)
    assert are_vectors(outcomes) == [True, True, False, True, True, True, True, True]
    failure = outcomes[2]
    assert isinstance(failure, Failure)
    assert failure.code == "invalid_vector"
    assert reason in failure.message
    assert len(provider.requests) == 2


def test_texts_wait_while_the_provider_sends_vectors_of_another_length() -> None:
    provider, clock = ScriptedProvider(None), Clock()
    provider.always = lambda texts: true_answer(texts, 4)
    shared = engine(provider, clock=clock)
    shared.session().embed(MODEL, TEXTS[:4])
    assert all(isinstance(outcome, Deferral) for outcome in shared.session().embed(MODEL, TEXTS[4:]))
    assert [len(texts) for texts in provider.requests] == [4, 4, 1]
    [notice] = shared.blockers()
    assert "the vector has 4 numbers, but 8 were asked for (EMBEDDING_DIMENSIONS)" in notice
    assert 'if 4 is right, set EMBEDDING_LENGTHS={"some-model": 4}' in notice
    clock.mono += 10
    assert isinstance(shared.session().embed(MODEL, TEXTS[4:])[0], Deferral)
    assert provider.requests[3:] == [[CANARY]], "no text is paid for while a canary's vector is unusable"
    clock.mono += 60
    provider.always = None
    assert all(are_vectors(shared.session().embed(MODEL, TEXTS[4:])))
    assert not shared.blockers()


def test_a_text_whose_vector_alone_has_another_length_waits_alone() -> None:
    provider, clock = ScriptedProvider(), Clock()
    provider.always = lambda texts: true_answer(texts, 4) if texts == TEXTS[:1] else None
    shared = engine(provider, clock=clock)
    [alone] = shared.session().embed(MODEL, TEXTS[:1])
    assert isinstance(alone, Deferral)
    assert alone.until - clock().wall == pytest.approx(ISOLATED_RETRY_S)
    assert provider.requests == [TEXTS[:1], TEXTS[:1], [CANARY]]
    assert all(are_vectors(shared.session().embed(MODEL, TEXTS[1:])))
    assert not shared.blockers()


def test_one_response_with_vectors_of_another_length_delays_its_texts_only_by_a_canary() -> None:
    provider = ScriptedProvider(lambda texts: true_answer(texts, 4))
    assert all(are_vectors(engine(provider).session().embed(MODEL, TEXTS)))
    assert provider.requests == [TEXTS, [CANARY], TEXTS]


def test_no_text_fails_while_no_vector_of_a_model_is_finite() -> None:
    provider, clock = ScriptedProvider(), Clock()
    provider.always = lambda texts: Embeddings(np.full((len(texts), 8), np.nan, np.float32), 1)
    shared = engine(provider, clock=clock)
    assert all(isinstance(outcome, Deferral) for outcome in shared.session().embed(MODEL, TEXTS))
    assert provider.requests == [TEXTS, [CANARY]]
    assert "scripted sends no usable vectors: the vector is not finite" in shared.blockers()[0]


@pytest.mark.parametrize("wrong", [1, 3])
def test_the_first_response_does_not_decide_on_the_length_of_an_unknown_model(wrong: int) -> None:
    provider = ScriptedProvider(*[lambda texts: true_answer(texts, 16)] * (wrong % 2))
    shared = engine(provider, embedding_dimensions=0)
    outcomes = shared.session().embed(MODEL, TEXTS)
    assert all(are_vectors(outcomes))
    assert {len(np.asarray(outcome)) for outcome in outcomes} == {8}
    assert shared.parts.guard.length_of(MODEL) == 8


def test_the_length_that_two_responses_agree_on_holds_after_a_restart() -> None:
    folder = mkdtemp()
    fields: dict[str, Any] = {"embedding_dimensions": 0, "state_dir": folder}
    assert all(are_vectors(engine(ScriptedProvider(), **fields).session().embed(MODEL, TEXTS)))
    provider = ScriptedProvider()
    provider.always = lambda texts: true_answer(texts, 16)
    later = engine(provider, **fields)
    assert all(isinstance(outcome, Deferral) for outcome in later.session().embed(MODEL, TEXTS))
    assert "those of some-model had 8 before" in later.blockers()[0]
    told = engine(provider, **fields, embedding_lengths={MODEL: 16})
    assert all(are_vectors(told.session().embed(MODEL, TEXTS)))


def test_a_canary_that_is_refused_too_blames_the_model() -> None:
    provider = ScriptedProvider()
    provider.always = BadInput("this model is not valid for this operation")
    shared = engine(provider, embedding_dimensions=0)
    assert all(isinstance(outcome, Deferral) for outcome in shared.session().embed(MODEL, TEXTS))
    assert provider.requests == [[CANARY]]
    assert "not valid for this operation" in shared.blockers()[0]


def test_a_text_that_the_provider_leaves_out_is_found_and_the_others_keep_their_vectors() -> None:
    provider = ScriptedProvider()
    provider.always = lambda texts: true_answer([text for text in texts if text != TEXTS[5]])
    outcomes = engine(provider).session().embed(MODEL, TEXTS)
    assert provider.requests[1] == [CANARY], "the evidence that the provider works"
    assert are_vectors(outcomes) == [True] * 5 + [False] + [True] * 2


def test_the_search_for_texts_that_a_provider_leaves_out_is_bounded() -> None:
    provider = ScriptedProvider()
    provider.always = lambda texts: None if texts == [CANARY] else true_answer(texts[1:])
    texts = [f"text {number}" for number in range(256)]
    outcomes = engine(provider).session().embed(MODEL, texts)
    assert all(isinstance(outcome, Failure) and outcome.code == "invalid_vector" for outcome in outcomes)
    assert len(provider.requests) < 50


def test_numbered_rows_are_matched_with_their_texts() -> None:
    answer = true_answer(TEXTS)
    order = [3, 0, 1, 2, 7, 6, 5]  # and 4 is missing
    provider = ScriptedProvider(Embeddings(answer.matrix[order], 8, order))
    outcomes = engine(provider).session().embed(MODEL, TEXTS)
    assert provider.requests[1:] == [[TEXTS[4]]]
    for row, outcome in zip(answer.matrix, outcomes, strict=True):
        assert isinstance(outcome, np.ndarray)
        assert np.array_equal(row, outcome)


@pytest.mark.parametrize("model", ["unknown", "doubted"])
def test_under_a_quota_a_canary_takes_the_place_of_its_batch(model: str) -> None:
    provider, clock = ScriptedProvider(), Clock()
    shared = engine(provider, clock=clock, embedding_dimensions=0)
    if model == "doubted":
        shared.parts.guard.lengths.doubt("scripted", MODEL)
    first = shared.session(8)
    outcomes = first.embed(MODEL, TEXTS)
    assert all(isinstance(outcome, Deferral) and outcome.unsent and outcome.at_most == 8 for outcome in outcomes)
    assert (provider.requests, first.requests, first.cached) == ([[CANARY]], 1, -1)
    assert all(are_vectors(shared.session(8).embed(MODEL, TEXTS)))
    assert provider.requests == [[CANARY], TEXTS]
