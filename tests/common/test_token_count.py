"""Token counts: never too low, exact with a quota, and without a network."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import task_types
from common.task_types import cl100k, token_count
from common.task_types.text_embedding import TextEmbeddingContent

SMALL = "text-embedding-3-small"
OTHER = "nomic-embed-text"


@given(st.text())
def test_no_text_has_more_tokens_than_its_bytes(text: str) -> None:
    assert token_count.count(text) <= token_count.bound(text) == len(text.encode())


@given(st.text(st.sampled_from("ab ä€\U0001f469"), max_size=300))
def test_the_count_is_exact_for_models_with_a_known_tokenizer(text: str) -> None:
    assert token_count.upper_bound(SMALL, text) == token_count.count(text)


@pytest.mark.parametrize("model", [OTHER, "text-embedding-004", "BAAI/bge-m3"])
def test_another_models_tokens_are_bounded_by_bytes(model: str) -> None:
    text = "a" * 800  # 100 tokens of cl100k
    assert token_count.count(text) < token_count.upper_bound(model, text) == 800


def test_a_text_that_is_too_long_costs_at_most_the_limit_of_the_model() -> None:
    assert token_count.upper_bound(SMALL, "word " * 8_191 + "word") == 8_192
    assert token_count.upper_bound(SMALL, "word " * 9_000) == 8_192
    assert token_count.upper_bound(SMALL, "x" * 50_000_000) == 8_192  # not even counted


def test_a_task_is_counted_exactly_only_with_a_token_quota() -> None:
    kind = task_types.registered(lambda model: model == SMALL)["text_embedding"]
    text = "a" * 80
    assert kind.tokens(TextEmbeddingContent(text, SMALL)) == 10
    assert kind.tokens(TextEmbeddingContent(text, "text-embedding-3-large")) == 80
    assert task_types.registered()["text_embedding"].tokens(TextEmbeddingContent(text, SMALL)) == 80


def test_counting_works_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refused)
    cl100k.encoding.cache_clear()
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})
    assert token_count.count("two words") == 2
