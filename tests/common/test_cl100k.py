"""The tokenizer counts as OpenAI does, in bounded time, whatever the text."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.task_types import cl100k


def test_the_vocabulary_is_the_one_that_openai_published() -> None:
    assert cl100k.vocabulary_is_intact()
    assert cl100k.encoding().n_vocab == 100_256


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # counted with tiktoken's own cl100k_base
        ("", 0),
        ("hello world", 2),
        ("<|endoftext|> x", 8),
        ("tiktoken is great!", 6),
        ("お誕生日おめでとう", 9),
        ("2 + 2 = 4", 7),
    ],
)
def test_texts_have_the_tokens_that_openai_counts(text: str, tokens: int) -> None:
    assert cl100k.count(text) == tokens


@pytest.mark.parametrize(
    "text",
    [" " * 1_200_000 + "a", "x" * 1_000_000, "\n\t" * 500_000 + "é", "漢" * 300_000, "\ud800" * 50_000],
    ids=["spaces before a letter", "one letter", "line breaks", "ideographs", "lone surrogates"],
)
def test_no_text_makes_the_tokenizer_panic_or_hang(text: str) -> None:
    began = time.process_time()
    assert 0 < cl100k.count(text) <= len(text.encode(errors="surrogatepass")) + cl100k.SLACK_TOKENS * 200
    assert time.process_time() - began < 20  # quadratic time would need minutes


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cl100k, "PIECE_CHARS", 12)
    monkeypatch.setattr(cl100k, "SEARCH_CHARS", 8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=" ab\n1é.'", max_size=400))
@pytest.mark.usefixtures("small_pieces")
def test_a_count_in_pieces_is_never_lower_than_the_exact_one(text: str) -> None:
    assert cl100k.count(text) >= len(cl100k.encoding().encode_ordinary(text))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(alphabet="abcxyzäß", min_size=1, max_size=7), max_size=60))
@pytest.mark.usefixtures("small_pieces")
def test_a_text_of_words_is_counted_exactly_however_long_it_is(words: list[str]) -> None:
    text = " ".join(words)
    assert cl100k.count(text) == len(cl100k.encoding().encode_ordinary(text))


def test_a_long_text_of_words_is_counted_exactly() -> None:
    text = "lorem ipsum dolor sit amet, consectetur 42 " * 3000
    assert cl100k.count(text) == len(cl100k.encoding().encode_ordinary(text))


@given(st.text(max_size=200), st.integers(1, 50))
def test_a_truncated_text_is_a_beginning_with_at_most_the_limit(text: str, limit: int) -> None:
    cut = cl100k.truncated(text, limit)
    assert text.encode(errors="replace").decode().startswith(cut) or text.startswith(cut)
    assert cl100k.count(cut) <= limit


def test_a_long_text_is_truncated_in_bounded_time_too() -> None:
    cut = cl100k.truncated(" " * 1_100_000 + "word " * 10, 8192)
    assert cl100k.count(cut) <= 8192
    assert len(cut) > cl100k.PIECE_CHARS
