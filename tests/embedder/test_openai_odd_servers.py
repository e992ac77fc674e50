"""The OpenAI provider against servers that lack base64, or report absurd usage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sandbox.client import Sandbox
from tests.embedder.conftest import Make
from tests.embedder.fakes import are_vectors
from tests.embedder.openai_texts import LARGE, TEXTS, got, truth


def without_base64(sandbox: Sandbox, **answer: Any) -> None:
    """Answer so whenever base64 is asked for."""
    sandbox.fault("openai", **answer, body_contains='"encoding_format"')


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 400, "body": '{"error":{"message":"bad request"}}'},
        {"status": 500, "body": '{"error":{"message":"internal error"}}'},
        {"status": 200, "body": '{"object":"list","data":[]}'},
        {"status": 200, "body": '{"object":"list","data":null}'},
        {"status": 200, "body": '{"data":[' + ",".join(['{"embedding":null}'] * 10) + "]}"},
        {"status": 200, "body": '{"data":[' + ",".join(['{"embedding":""}'] * 10) + "]}"},
    ],
    ids=["400", "500", "no data", "data null", "embeddings null", "embeddings empty"],
)
def test_lists_of_numbers_are_asked_for_when_a_server_fails_whenever_base64_is(
    make: Make, sandbox: Sandbox, capsys: pytest.CaptureFixture[str], answer: dict[str, Any]
) -> None:
    expected = truth(make)
    without_base64(sandbox, **answer)
    engine = make()
    before = sandbox.summary()["openai"]["requests"]
    for _ in range(3):
        assert np.allclose(np.array(got(engine)[1]), expected, atol=1e-7)
    assert are_vectors(got(engine, model=LARGE)[1]) == [True] * 10
    assert sandbox.summary()["openai"]["requests"] - before == 2 * 2 + 1 + 1
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count("openai_field_dropped") == 1


def test_one_bad_text_does_not_hide_that_a_server_has_no_base64(make: Make, sandbox: Sandbox) -> None:
    sandbox.fault("openai", status=400, body='{"error":{"message":"cannot read it"}}', body_contains="number 7")
    without_base64(sandbox, status=400, body='{"error":{"message":"bad request"}}')
    assert are_vectors(got(make())[1]) == [number != 7 for number in range(10)]


def test_base64_is_kept_where_it_has_worked(make: Make, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    engine = make()
    got(engine)
    sandbox.fault("openai", status=200, body='{"data":[]}', times=2)
    sandbox.fault("openai", status=500, times=2)
    got(engine)
    got(engine)
    shown = capsys.readouterr()
    assert "openai_field_dropped" not in shown.out + shown.err


def test_one_server_error_at_the_start_teaches_nothing(
    make: Make, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.fault("openai", status=500, times=1)
    engine = make()
    for _ in range(2):
        assert all(are_vectors(got(engine)[1]))
    without_base64(sandbox, status=500)
    got(engine)
    shown = capsys.readouterr()
    assert "openai_field_dropped" not in shown.out + shown.err


@pytest.mark.parametrize("reported", ["usage_negative", "usage_huge", "usage_null"])
def test_an_absurd_usage_counts_as_the_estimate_and_is_told_once(
    make: Make, sandbox: Sandbox, capsys: pytest.CaptureFixture[str], reported: str
) -> None:
    sandbox.fault("openai", transform=reported)
    engine = make()
    for _ in range(2):
        session, outcomes = got(engine)
        assert all(are_vectors(outcomes))
        assert session.tokens == sum(len(text) for text in TEXTS)
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count("usage_ignored") == 1
