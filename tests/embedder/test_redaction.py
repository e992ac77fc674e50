"""A provider's words, without the key and the texts it was given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.embedder.providers.redaction import LONGEST, RUN, redact

SECRET = "the patient Jane Doe\nhas a broken “arm”"


@pytest.mark.parametrize(
    "words",
    [
        f"bad input: {SECRET}",
        "bad input: 'Jane Doe'",
        'near "Jane Doe"...',
        "got the patient Jane D",
        f"got {SECRET!r}",
        r'got "the patient Jane Doe\nhas a broken \u201carm\u201d"',
        "the patient Jane Doe has a broken",
    ],
)
def test_echoes_are_taken_out(words: str) -> None:
    said = redact(words, ["something else", SECRET])
    assert "Jane" not in said
    assert "broken" not in said


def test_short_texts_are_taken_out_where_they_stand_alone() -> None:
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
def test_keys_are_taken_out(words: str) -> None:
    said = redact(words, secret="hunter2hunter2")
    assert "sk-" not in said
    assert "hunter2" not in said
    assert "find" in said


def test_plain_words_stay() -> None:
    words = "This model's maximum context length is 8192 tokens, requested 9001."
    assert redact(words, ["a text about nothing"]) == words


@given(st.text(max_size=1000), st.lists(st.text(max_size=40), max_size=4))
def test_they_are_one_short_line_and_no_echo(words: str, texts: list[str]) -> None:
    said = redact(words, texts)
    assert len(said) <= LONGEST
    assert said.isprintable()
    for text in texts:
        plain = " ".join(text.split())
        if len(plain) >= RUN:
            assert plain not in said
