"""The preflight counts, refuses and truncates texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.task_types import cl100k, token_count
from common.wire.messages import Failure
from stages.embedder.preflight import run_preflight

SMALL = "text-embedding-3-small"


@given(st.text(st.sampled_from("ab äö€👩‍👧\n "), min_size=1, max_size=60), st.integers(1, 12))
def test_a_truncated_text_is_a_prefix_within_the_token_limit(text: str, limit: int) -> None:
    cut = token_count.truncated(text, limit)
    assert text.startswith(cut)
    assert token_count.count(cut) <= limit
    cut.encode()


@given(st.text(max_size=60), st.integers(1, 12))
def test_excess_tokens_are_counted_exactly_unless_the_text_is_far_too_long(text: str, limit: int) -> None:
    exact = token_count.count(text)
    found = token_count.excess(text, limit)
    if token_count.bound(text) > limit * token_count.LONGEST_TOKEN_BYTES:
        assert limit < found <= exact, "not counted"
    else:
        assert found == (exact if exact > limit else 0)


def test_no_token_is_longer_than_the_bound() -> None:
    assert max(map(len, cl100k.encoding().token_byte_values())) == token_count.LONGEST_TOKEN_BYTES


def test_a_text_of_many_megabytes_is_refused_without_counting() -> None:
    assert token_count.excess("x" * 50_000_000, 8192) > 8192


def test_special_tokens_are_plain_text() -> None:
    assert token_count.count("<|endoftext|>") > 1
    assert run_preflight(SMALL, ["<|endoftext|>"], truncate=False).refused == {}


def test_a_text_of_exactly_the_limit_is_accepted() -> None:
    longest = "word " * 8191 + "word"
    assert token_count.count(longest) == 8192
    assert run_preflight(SMALL, [longest], truncate=False).refused == {}
    assert run_preflight(SMALL, [longest + " word"], truncate=False).refused[0].code == "text_too_long"


def test_the_token_limit_applies_only_to_models_whose_tokenizer_is_known() -> None:
    long = "word " * 20_000
    assert run_preflight("qwen3-embedding", [long], truncate=False).wanted == {long: [0]}


def test_texts_that_are_identical_after_truncation_are_merged() -> None:
    long = "word " * 9000
    found = run_preflight(SMALL, [long + "a", long + "b", "short", "short"], truncate=True)
    assert sorted(found.wanted.values()) == [[0, 1], [2, 3]]


def test_a_text_that_is_not_a_string_is_refused() -> None:
    refused = run_preflight(SMALL, [None, 3], truncate=False).refused  # type: ignore[list-item]
    assert refused[0] == Failure("invalid_text", "the text is not a string but NoneType")
    assert refused[1].code == "invalid_text"


class PanicError(BaseException):
    """Like pyo3_runtime.PanicException, it is not an `Exception`."""


@pytest.mark.parametrize("error", [RuntimeError("s3cret"), PanicError("s3cret")])
def test_a_text_whose_check_raises_fails_alone(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def excess(text: str, limit: int) -> int:
        if text.startswith("bad"):
            raise error
        return 0

    monkeypatch.setattr(token_count, "excess", excess)
    bad, good = "bad" * 5000, "good" * 5000
    found = run_preflight(SMALL, [good, bad, "short"], truncate=False)
    assert found.wanted == {good: [0], "short": [2]}
    assert found.refused[1].code == "invalid_content"
    assert "s3cret" not in found.refused[1].message


def test_a_text_with_a_million_spaces_before_a_letter_is_checked() -> None:
    found = run_preflight(SMALL, [" " * 1_200_000 + "x", "short"], truncate=False)
    assert found.wanted == {"short": [1]}
    assert found.refused[0].code == "text_too_long"
