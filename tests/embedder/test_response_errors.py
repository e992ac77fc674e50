"""Error bodies of OpenAI, Ollama and compatible servers, and the errors that they become."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.failures.errors import Error, Throttled, Transient
from stages.embedder.providers import BadInput, NeedsOperator, ProviderServerError, responses
from stages.embedder.providers.openai_errors import refusal


@pytest.mark.parametrize(
    ("content", "message", "code", "param"),
    [
        ({"error": {"message": "no", "type": "t", "code": "c", "param": "dimensions"}}, "no", "c t", "dimensions"),
        ({"error": {"message": "no", "type": None, "code": None, "param": None}}, "no", "", ""),
        ({"error": "no"}, "no", "", ""),
        ({"detail": "no"}, "no", "", ""),
        ({"message": "no", "code": 400}, "no", "400", ""),
        ({"detail": [{"loc": ["body", "input"], "msg": "no", "input": "SECRET"}]}, "no", "", "input"),
        ("no", "no", "", ""),
        ({}, "", "", ""),
        ([], "", "", ""),
        (None, "", "", ""),
    ],
)
def test_message_code_and_field_are_found_in_error_bodies_of_all_shapes(
    content: Any, message: str, code: str, param: str
) -> None:
    said = responses.error_body(json.dumps(content).encode())
    assert (said.message, said.code, said.param) == (message, code, param)


def test_the_message_of_an_error_that_is_not_json_is_its_text() -> None:
    assert responses.error_body(b"<html>Bad gateway</html>").message == "an HTML page"
    assert responses.error_body(b"upstream gone").message == "upstream gone"


def judged(status: int, content: Any = None, headers: dict[str, str] | None = None, count: int = 2) -> Error:
    texts = [f"text {number}" for number in range(count)]
    return refusal(status, json.dumps(content).encode(), headers or {}, model="m", texts=texts, key="key")


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (400, {"error": {"message": "bad"}}, BadInput),
        (413, None, BadInput),
        (422, {"detail": [{"loc": ["body", "input", 3], "msg": "bad"}]}, BadInput),
        (400, {"error": {"message": "API key not valid. Please pass a valid API key."}}, NeedsOperator),
        (401, None, NeedsOperator),
        (402, None, NeedsOperator),
        (403, {"error": {"message": "Country not supported"}}, NeedsOperator),
        (404, {"error": {"message": "The model `m` does not exist", "code": "model_not_found"}}, NeedsOperator),
        (404, None, NeedsOperator),
        (405, None, NeedsOperator),
        (408, None, Transient),
        (409, None, Transient),
        (429, None, Throttled),
        (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, NeedsOperator),
        (429, {"error": {"message": "quota", "type": "insufficient_quota"}}, NeedsOperator),
        (429, {"error": {"message": "Request too large for m: Limit 100, Requested 300"}}, BadInput),
        (500, {"detail": "Internal error"}, ProviderServerError),
        (502, None, Transient),
        (503, None, Transient),
    ],
)
def test_each_status_and_message_becomes_the_right_error(status: int, content: Any, expected: type[Error]) -> None:
    assert isinstance(judged(status, content), expected)


@pytest.mark.parametrize(
    ("status", "content", "model_only"),
    [
        (404, {"error": {"message": "The model `m` does not exist", "code": "model_not_found"}}, True),
        (403, {"error": {"message": "Project does not have access", "code": "model_not_found"}}, True),
        (400, {"detail": "model m not found"}, True),
        (404, {"error": {"message": "Invalid URL (POST /embeddings)"}}, False),
        (401, {"error": {"message": "Incorrect API key provided: key."}}, False),
    ],
)
def test_a_missing_model_does_not_affect_other_models(status: int, content: Any, model_only: bool) -> None:
    error = judged(status, content)
    assert isinstance(error, NeedsOperator)
    assert error.model_only is model_only


def test_a_single_text_too_large_for_the_quota_of_a_minute_is_throttled() -> None:
    content = {"error": {"message": "Request too large for m: Limit 100, Requested 300"}}
    assert isinstance(judged(429, content, count=1), Throttled)


def test_throttled_errors_have_the_delay_of_the_headers_or_a_default() -> None:
    for status in (429, 503):
        error = judged(status, None, {"retry-after": "7"})
        assert isinstance(error, Throttled)
        assert error.delay == 7
    default = judged(429)
    assert isinstance(default, Throttled)
    assert default.delay > 0


@given(
    st.integers(300, 599),
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["error", "message", "detail", "code", "type", "param", "loc", "msg"]), inner
            )
        ),
    ),
)
def test_any_error_body_becomes_a_short_error(status: int, content: Any) -> None:
    assert len(str(judged(status, content))) < 500


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"error": {"message": "overloaded"}}', True),
        ('{"data": [], "error": {"message": "overloaded"}}', True),
        ('{"data": null, "error": "overloaded"}', True),
        ('{"data": [], "error": null}', False),
        ('{"error": null, "data": [{"embedding": [1]}]}', False),
        ('{"embeddings": [], "error": "overloaded"}', True),
        ('{"embeddings": []}', False),
    ],
)
def test_an_error_with_status_200_is_found_beside_empty_data_too(text: str, expected: bool) -> None:
    assert responses.has_error(text.encode()) is expected
