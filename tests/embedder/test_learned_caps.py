"""How large a request may be, and what is learned from refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.process import metrics
from common.task_types import token_count
from stages.embedder.calling.learned_caps import FORGET_AFTER_S, LearnedCaps
from stages.embedder.providers import Caps
from tests.embedder.fakes import Clock

TEXTS = ["word " * 10 for _ in range(256)]
HALVES = [TEXTS[:128], TEXTS[128:]]


def learned(words: str, passed: int) -> LearnedCaps:
    caps = LearnedCaps("capped", Caps(2048, 300_000), Clock())
    caps.request_passed(passed)
    caps.learn(TEXTS, HALVES, words)
    return caps


@pytest.mark.parametrize(
    ("words", "passed", "inputs", "by_tokens"),
    [
        ("'$.input' is invalid: at most 250 inputs.", 0, 250, None),
        ("batch size 256 exceeds the maximum allowed batch size 200", 0, 200, None),
        ("too many items", 0, 128, None),
        ("batch too large: at most 32", 0, 128, None),  # the cap is not 32, because 128 passed
        ("no reason given", 0, 128, None),
        ("no reason given", 256, 2048, 1280 + 128),  # as many inputs passed before
        ("Requested 3000 tokens, max 2,000 tokens per request", 0, 2048, 2000),
        ("too many tokens", 0, 2048, 1280 + 128),
    ],
)
def test_a_refusal_teaches_a_cap_of_inputs_or_of_tokens(
    words: str, passed: int, inputs: int, by_tokens: int | None
) -> None:
    caps = learned(words, passed).current
    assert caps.inputs == inputs
    assert by_tokens is None or caps.tokens <= by_tokens
    assert by_tokens is not None or caps.tokens == 300_000


def test_a_learned_cap_is_shown_in_the_metrics_and_forgotten_after_an_hour() -> None:
    clock = Clock()
    caps = LearnedCaps("forgetful", Caps(2048, 300_000), clock)
    labels = {"provider": "forgetful", "unit": "inputs"}
    caps.learn(TEXTS, HALVES, "too many inputs")
    assert metrics.REGISTRY.get_sample_value("embedder_learned_cap", labels) == 128
    clock.mono += FORGET_AFTER_S
    assert caps.current == Caps(2048, 300_000)
    assert metrics.REGISTRY.get_sample_value("embedder_learned_cap", labels) == 0


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=40),
    st.integers(1, 20),
    st.integers(1, 60),
)
def test_split_requests_keep_to_the_caps_and_to_the_order(words: list[int], inputs: int, most: int) -> None:
    texts = ["word " * count for count in words]
    positions = range(len(texts))
    pieces = LearnedCaps("cutter", Caps(inputs, most), Clock()).split(positions, texts)
    assert [position for piece in pieces for position in piece] == list(positions)
    for piece in pieces:
        assert 0 < len(piece) <= inputs
        assert len(piece) == 1 or sum(token_count.count(texts[position]) for position in piece) <= most
