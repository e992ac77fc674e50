"""What is shown of the messages of an API: its own words, and nothing that it repeats."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.api import error_words
from common.api.error_words import MASK, shown

TEXT = "Zoë Müller from Köln owes 4711 euros to Mr Smith, whose secret is kept by Anna"
TOKEN = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"
VECTOR = str([0.25, -0.125, 1e-7] * 20)
PIECES = re.compile(r"Zo|ller|ln|owe|4711|euro|Smith|secret|kept|Anna|eyJ|c2ln|25|WlM|bsO|5A6F|ennA", re.IGNORECASE)

ECHOES: dict[str, Callable[[str], str]] = {
    "whole": lambda text: text,
    "half": lambda text: text[: len(text) // 2],
    "end": lambda text: text[len(text) // 2 :],
    "quoted": lambda text: f'"{text}"',
    "in upper case": str.upper,
    "escaped": json.dumps,
    "escaped twice": lambda text: json.dumps(json.dumps(text)),
    "in a URL": quote,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "reversed": lambda text: text[::-1],
    "spaced": " ".join,
    "one word a line": lambda text: text.replace(" ", "\n"),
}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("callback failed", "callback failed"),
        ("Internal server error", "Internal server error"),
        ("ThrottlerException: Too Many Requests", "ThrottlerException: Too Many Requests"),
        ("result must be a non-empty array of numbers", "result must be a non-empty array of numbers"),
        ("AI task not found", "AI task not found"),
        ("Request failed with status code 503", "Request failed with status code 503"),
        ("property surname should not exist", f"property {MASK} not exist"),
        ("Value of 'state' must be pending", "Value of state must be pending"),
        ('Cast to ObjectId failed for value "65 f" at path "_id"', f"Cast to ObjectId failed for value {MASK}"),
        ("connect ECONNREFUSED 10.0.0.3:5432", f"connect ECONNREFUSED {MASK}"),
        ("embedding has the wrong length: expected 1536, got 8", f"embedding has the wrong length: expected {MASK}"),
        ("the code 4711 is wrong, the pin 503 too", f"the code {MASK}"),
        ("Der Rückruf ist fehlgeschlagen", ""),
        ("of the and in", ""),
        ("", ""),
    ],
)
def test_the_words_of_error_messages_are_shown(message: str, words: str) -> None:
    assert shown(message) == words


@pytest.mark.parametrize("content", [TEXT, TOKEN, f"Bearer {TOKEN}", VECTOR], ids=["text", "token", "bearer", "vector"])
@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize(
    "around", ["{}", "{} failed", "callback failed: {}", "callback failed: {} is not a valid value", "invalid {}"]
)
def test_nothing_that_the_api_repeats_is_shown(content: str, echo: str, around: str) -> None:
    words = shown(around.format(ECHOES[echo](content)))
    assert not PIECES.search(words)
    assert content[:12].upper() not in words.upper()


@given(
    st.text() | st.lists(st.sampled_from(["failed", "the", "of", "Zoë", "7", "'", '"', "a-b", "error"])).map(" ".join)
)
def test_only_words_of_the_vocabulary_are_ever_shown(message: str) -> None:
    for word in shown(message).replace(MASK, " ").split():
        core = word.lower().strip("().,:;!?")
        assert all(
            part in error_words._GLUE or error_words._is_known(part) or re.fullmatch(r"[1-5][0-9]{2}", part)
            for part in re.split(r"[-./]", core)
        ), word


def test_a_message_that_is_long_and_hostile_takes_no_time() -> None:
    assert shown("'\"`" * 100_000) == ""
    assert shown("callback failed " * 100_000).startswith("callback failed callback")
