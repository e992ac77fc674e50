"""A provider's message is shown without the key and without the texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.embedder.providers.redaction import MAX_CHARS, RUN_CHARS, redact

SECRET = "the client Jane Doe\nhas a broken “arm”"


@pytest.mark.parametrize(
    "words",
    [
        f"bad input: {SECRET}",
        "bad input: 'Jane Doe'",
        'near "Jane Doe"...',
        "got the client Jane D",
        f"got {SECRET!r}",
        r'got "the client Jane Doe\nhas a broken \u201carm\u201d"',
        "the client Jane Doe has a broken",
    ],
)
def test_quotations_of_a_text_are_removed(words: str) -> None:
    said = redact(words, ["something else", SECRET])
    assert "Jane" not in said
    assert "broken" not in said


def test_short_texts_are_removed_only_as_whole_words() -> None:
    assert redact("cannot embed Jane, sorry", ["Jane"]) == "cannot embed …, sorry"
    assert redact("the input is invalid", ["in"]) == "the input is invalid"


@pytest.mark.parametrize(
    "words",
    [
        "Incorrect API key provided: sk-abc***xyz. You can find",
        "Incorrect API key provided: sk-proj-0123456789. You can find",
        "Incorrect API key provided: hunter2hunter2. You can find",
        "Bearer hunter2hunter2 is wrong. You can find",
    ],
)
def test_keys_are_removed(words: str) -> None:
    said = redact(words, secret="hunter2hunter2")
    assert "sk-" not in said
    assert "hunter2" not in said
    assert "find" in said


def test_a_message_without_texts_is_not_changed() -> None:
    words = "This model's maximum context length is 8192 tokens, requested 9001."
    assert redact(words, ["a text about nothing"]) == words


@given(st.text(max_size=1000), st.lists(st.text(max_size=40), max_size=4))
def test_any_message_becomes_one_short_line_without_the_texts(words: str, texts: list[str]) -> None:
    said = redact(words, texts)
    assert len(said) <= MAX_CHARS
    assert said.isprintable()
    for text in texts:
        plain = " ".join(text.split())
        if len(plain) >= RUN_CHARS:
            assert plain not in said
