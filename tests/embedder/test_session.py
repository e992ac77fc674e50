"""Vectors that a batch gets without a request, from another batch, or from another provider."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.failures.errors import Transient
from common.task_types import Deferral
from common.wire.messages import Failure
from stages.embedder.providers import NeedsOperator, mock
from tests.embedder.fakes import MODEL, Clock, HeldReply, ScriptedProvider, engine, settings, true_answer

SMALL = "text-embedding-3-small"


def test_identical_texts_are_embedded_once() -> None:
    provider = ScriptedProvider()
    session = engine(provider).session()
    outcomes = session.embed(MODEL, ["a", "b", "a", "a", "b"])
    assert provider.requests == [["a", "b"]]
    assert session.cached == 3
    for text, outcome in zip("abaab", outcomes, strict=True):
        assert np.array_equal(np.asarray(outcome), true_answer([text]).matrix[0])


def test_texts_that_no_provider_accepts_fail_without_a_request() -> None:
    provider = ScriptedProvider()
    session = engine(provider).session()
    long = "word " * 8193
    outcomes = session.embed(SMALL, ["", " \n\t", "\ud800", long, "fine"])
    codes = [outcome.code if isinstance(outcome, Failure) else "" for outcome in outcomes]
    assert codes == ["empty_text", "empty_text", "invalid_text", "text_too_long", ""]
    assert provider.requests == [["fine"]]
    assert "word" not in str(outcomes[3])
    nothing = engine(ScriptedProvider()).session()
    nothing.embed(SMALL, [""])
    assert (nothing.requests, nothing.tokens) == (0, 0)


def test_long_texts_are_truncated_if_the_settings_say_so() -> None:
    provider = ScriptedProvider()
    session = engine(provider, truncate_long_texts=True).session()
    outcome = session.embed(SMALL, ["word " * 9000])[0]
    assert isinstance(outcome, np.ndarray)
    assert len(provider.requests[0][0]) == pytest.approx(8192 * 5, abs=5)


def test_a_batch_waits_for_a_text_that_another_batch_embeds_now() -> None:
    held = HeldReply()
    provider = ScriptedProvider(held, lambda _texts: held.go.set())
    shared = engine(provider)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(shared.session().embed, MODEL, ["a", "b"])
        assert held.began.wait(30)
        other = shared.session()
        second = pool.submit(other.embed, MODEL, ["b", "c"])
        assert np.array_equal(np.asarray(first.result()[1]), np.asarray(second.result()[0]))
    assert provider.requests == [["a", "b"], ["c"]]
    assert other.cached == 1
    assert shared.session().embed(MODEL, ["b"])
    assert provider.requests[2:] == [["b"]], "without a cache, vectors are not kept after the batch"


def test_batches_that_wait_for_a_text_are_deferred_if_its_batch_is() -> None:
    held = HeldReply(NeedsOperator("no quota"))
    shared = engine(ScriptedProvider(held))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(shared.session().embed, MODEL, ["a"])
        assert held.began.wait(30)
        second = pool.submit(shared.session().embed, MODEL, ["a"])
        held.go.set()
        assert isinstance(first.result()[0], Deferral)
        waited = second.result()[0]
    assert isinstance(waited, Deferral)
    assert waited.unsent


def test_after_an_unexpected_exception_the_texts_can_be_embedded_by_another_batch() -> None:
    provider = ScriptedProvider(ZeroDivisionError())
    shared = engine(provider)
    with pytest.raises(ZeroDivisionError):
        shared.session().embed(MODEL, ["a"])
    assert isinstance(shared.session().embed(MODEL, ["a"])[0], np.ndarray)


def test_many_threads_pay_once_for_each_text(tmp_path: Path) -> None:
    provider = ScriptedProvider()
    shared = engine(provider, state_dir=tmp_path, embedding_cache_size=2**20)
    batches = [[f"text {number % 50}" for number in range(start, start + 20)] for start in range(0, 400, 20)]
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda batch: shared.session().embed(MODEL, batch), batches))
    shared.close()
    assert len(provider.paid) == len(set(provider.paid)) == 50
    for batch, found in zip(batches, outcomes, strict=True):
        for text, outcome in zip(batch, found, strict=True):
            assert np.array_equal(np.asarray(outcome), true_answer([text]).matrix[0])


def test_cached_texts_are_not_sent_again_even_after_a_restart(tmp_path: Path) -> None:
    provider = ScriptedProvider()
    fields: dict[str, Any] = {"state_dir": tmp_path, "embedding_cache_size": 2**20}
    shared = engine(provider, **fields)
    first = shared.session().embed(MODEL, ["a", "b"])
    shared.close()
    shared = engine(provider, **fields)
    session = shared.session()
    outcomes = session.embed(MODEL, ["b", "c", "a"])
    assert provider.requests == [["a", "b"], ["c"]]
    assert session.cached == 2
    assert np.array_equal(np.asarray(outcomes[0]), np.asarray(first[1]))
    shared.session().embed("another-model", ["a"])
    assert provider.requests[2:] == [["a"]]
    shared.close()
    longer = engine(provider, **fields, embedding_dimensions=4, embedding_lengths={MODEL: 8})
    longer.session().embed(MODEL, ["a"])
    assert provider.requests[3:] == [["a"]]
    longer.close()


def test_failures_are_not_cached(tmp_path: Path) -> None:
    provider = ScriptedProvider(NeedsOperator("no"))
    clock = Clock()
    shared = engine(provider, clock=clock, state_dir=tmp_path, embedding_cache_size=2**20)
    assert isinstance(shared.session().embed(MODEL, ["a"])[0], Deferral)
    clock.mono += 100
    assert isinstance(shared.session().embed(MODEL, ["a"])[0], np.ndarray)
    shared.close()


def test_mock_keeps_no_cache(tmp_path: Path) -> None:
    shared = engine(mock.Mock(settings(processing_mode="mock")), state_dir=tmp_path, embedding_cache_size=2**20)
    assert shared.reuse.cache is None
    assert not list(tmp_path.iterdir())


def pair() -> tuple[ScriptedProvider, ScriptedProvider]:
    ollama, openai = ScriptedProvider(name="ollama"), ScriptedProvider(name="openai")
    ollama.having = frozenset({"nomic", "bge-m3"})
    return ollama, openai


def test_each_model_goes_to_the_provider_that_has_it() -> None:
    ollama, openai = pair()
    openai.having = frozenset({SMALL})
    shared = engine(ollama, openai, processing_mode="hybrid")
    shared.session().embed("nomic", ["a"])
    shared.session().embed(SMALL, ["b"])
    assert ollama.requests == [["a"]]
    assert openai.requests == [["b"]]


def test_another_provider_serves_the_same_model_while_the_first_one_is_down() -> None:
    ollama, openai = pair()
    ollama.always = Transient("down")
    shared = engine(ollama, openai, processing_mode="hybrid", max_retries=0, circuit_breaker_threshold=1)
    assert isinstance(shared.session().embed("nomic", ["a"])[0], np.ndarray)
    assert isinstance(shared.session().embed("nomic", ["b"])[0], np.ndarray)
    assert len(ollama.requests) == 1, "the breaker of ollama is open"
    assert openai.models == ["nomic", "nomic"]
    assert shared.blockers() == []
    assert shared.key_cooldowns(0.0) == {}


def test_a_model_with_another_name_is_a_fallback_only_if_the_settings_say_so() -> None:
    ollama, openai = pair()
    openai.having = frozenset()
    ollama.always = Transient("down")
    shared = engine(ollama, openai, processing_mode="hybrid", max_retries=0)
    assert isinstance(shared.session().embed("bge-m3", ["a"])[0], Deferral)
    assert openai.requests == []
    fields: dict[str, Any] = {
        "processing_mode": "hybrid",
        "max_retries": 0,
        "fallback_models": {"bge-m3": "BAAI/bge-m3"},
    }
    shared = engine(ollama, openai, **fields)
    assert isinstance(shared.session().embed("bge-m3", ["a"])[0], np.ndarray)
    assert openai.models == ["BAAI/bge-m3"]


def test_a_fallback_with_vectors_of_another_length_is_refused() -> None:
    ollama, openai = pair()
    openai.always = lambda texts: true_answer(texts, 4)
    clock = Clock()
    fields: dict[str, Any] = {"processing_mode": "hybrid", "max_retries": 0, "fallback_models": {"bge-m3": "other"}}
    shared = engine(ollama, openai, clock=clock, **fields)
    shared.session().embed("bge-m3", ["a"])
    ollama.always = Transient("down")
    assert isinstance(shared.session().embed("bge-m3", ["b"])[0], Deferral)
    assert "another model" in shared.model_notices()["other"]


def test_a_model_that_no_provider_lists_is_asked_of_openai_first_and_then_downloaded() -> None:
    ollama, openai = pair()
    openai.always = NeedsOperator("no such model", model_only=True)
    shared = engine(ollama, openai, processing_mode="hybrid")
    assert isinstance(shared.session().embed("new", ["a"])[0], np.ndarray)
    assert (openai.models, ollama.models) == (["new"], ["new"])


def test_a_provider_without_the_model_is_not_asked_while_the_other_is_down() -> None:
    ollama, openai = pair()
    ollama.always, ollama.having, openai.having = Transient("down"), None, frozenset({SMALL})
    shared = engine(ollama, openai, processing_mode="hybrid", max_retries=0)
    assert isinstance(shared.session().embed("nomic", ["a"])[0], Deferral)
    assert openai.requests == []


def test_only_supported_models_are_downloaded_or_served_by_ollama() -> None:
    provider = ScriptedProvider(name="ollama")
    shared = engine(provider, processing_mode="ollama", supported_models=["nomic"])
    failure = shared.session().embed("other", ["a"])[0]
    assert failure == Failure("unsupported_model", "the model other is not in SUPPORTED_MODELS")
    assert isinstance(shared.session().embed("nomic", ["a"])[0], np.ndarray)
    ollama, openai = pair()
    ollama.having, openai.always = frozenset(), NeedsOperator("no such model", model_only=True)
    shared = engine(ollama, openai, processing_mode="hybrid", supported_models=["nomic"])
    assert isinstance(shared.session().embed("other", ["a"])[0], Deferral)
    assert ollama.requests == []


def test_one_bad_model_does_not_block_the_service() -> None:
    provider, clock = ScriptedProvider(NeedsOperator("no such model", model_only=True)), Clock()
    shared = engine(provider, clock=clock)
    shared.session().embed("bad", ["a"])
    assert shared.blockers() == ["bad: no such model"], "there was no task for any other model"
    shared.session().embed("good", ["a"])
    assert shared.blockers() == []
    assert shared.model_notices() == {"bad": "no such model"}
    assert list(shared.key_cooldowns(clock().wall)) == ["bad"]


def test_a_stop_during_a_back_off_defers_the_text() -> None:
    provider = ScriptedProvider()
    provider.always = Transient("down")
    shared = engine(provider, max_retries=100)
    shared.parts = shared.parts._replace(runtime=shared.parts.runtime._replace(wait=lambda _seconds: True))
    outcome = shared.session().embed(MODEL, ["a"])[0]
    assert isinstance(outcome, Deferral)
    assert len(provider.requests) == 1


def test_a_model_that_cannot_be_served_is_reported_while_others_are_served() -> None:
    provider = ScriptedProvider(NeedsOperator("no such model", model_only=True))
    shared = engine(provider)
    shared.session().embed("wrong", ["a"])
    assert shared.blockers() == shared.notices() == ["wrong: no such model"]
    shared.session().embed("right", ["a"])
    assert shared.blockers() == []
    assert shared.notices() == ["wrong: no such model"]


def test_a_provider_that_is_down_is_reported_while_another_serves_its_models() -> None:
    first, second = ScriptedProvider(name="ollama"), ScriptedProvider(name="openai")
    first.always = NeedsOperator("the key is refused")
    shared = engine(first, second, processing_mode="hybrid")
    first.having = second.having = frozenset({MODEL})
    assert isinstance(shared.session().embed(MODEL, ["a"])[0], np.ndarray)
    assert shared.blockers() == []
    (notice,) = shared.notices()
    assert notice.startswith("ollama: the key is refused")
