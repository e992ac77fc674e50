"""Response bodies of OpenAI, Ollama and compatible servers."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.failures.errors import Error, Throttled, Transient
from stages.embedder.providers import BadInput, NeedsOperator, ProviderServerError, mock, responses
from stages.embedder.providers.openai_errors import refusal

ROWS = mock.vectors("m", ["a", "b", "c"], 12)


def encoded(rows: Any) -> list[str]:
    return [base64.b64encode(np.asarray(row, "<f4").tobytes()).decode() for row in rows]


def body(embeddings: list[Any], **fields: Any) -> bytes:
    data = [{"object": "embedding", "index": at, "embedding": one} for at, one in enumerate(embeddings)]
    return json.dumps({"object": "list", "data": data, **fields}).encode()


def test_base64_and_lists_of_numbers_give_the_same_vectors() -> None:
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    packed = responses.decode_openai(body(encoded(ROWS), usage=usage), 3)
    plain = responses.decode_openai(body(ROWS.tolist(), usage=usage), 3)
    assert packed.tokens == plain.tokens == 7
    assert packed.positions is None
    assert np.array_equal(packed.matrix, ROWS)
    assert np.array_equal(plain.matrix, ROWS)
    assert packed.matrix.dtype == np.float32
    assert packed.matrix.flags.writeable


@pytest.mark.parametrize("usage", [{}, {"usage": None}, {"usage": {}}, {"usage": {"prompt_tokens": None}}])
def test_missing_usage_counts_as_no_tokens(usage: dict[str, Any]) -> None:
    assert responses.decode_openai(body(encoded(ROWS), **usage), 3).tokens == 0


def test_null_and_nan_in_a_vector_become_nan() -> None:
    rows = ROWS.tolist()
    rows[1][3] = None
    matrix = responses.decode_openai(body(rows), 3).matrix
    assert np.isnan(matrix[1, 3])
    assert np.array_equal(matrix[[0, 2]], ROWS[[0, 2]])
    rows[1][3] = float("nan")
    rows[2][0] = float("inf")
    matrix = responses.decode_openai(body(rows), 3).matrix
    assert np.isnan(matrix[1, 3])
    assert np.isinf(matrix[2, 0])


@pytest.mark.parametrize("rows", [encoded([*ROWS[:2], ROWS[2, :5]]), [*ROWS[:2].tolist(), ROWS[2, :5].tolist()]])
def test_only_a_row_of_another_length_becomes_nan(rows: list[Any]) -> None:
    matrix = responses.decode_openai(body(rows), 3).matrix
    assert np.array_equal(matrix[:2], ROWS[:2])
    assert np.isnan(matrix[2]).all()


def test_rows_keep_the_positions_that_the_provider_numbers() -> None:
    data = [{"index": at, "embedding": row} for at, row in zip([2, 0], encoded(ROWS[[2, 0]]), strict=True)]
    found = responses.decode_openai(json.dumps({"data": data}).encode(), 3)
    assert found.positions == [2, 0]
    for item in data:
        del item["index"]
    assert responses.decode_openai(json.dumps({"data": data}).encode(), 3).positions is None


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"<html>",
        b'{"data": [{"embedding": [1',
        b"[]",
        b'{"data": "x"}',
        b'{"data": [{"embedding": "%%"}]}',
        b"NaN",
    ],
)
def test_a_body_that_cannot_be_decoded_is_transient(broken: bytes) -> None:
    with pytest.raises(Transient):
        responses.decode_openai(broken, 1)
    with pytest.raises(Transient):
        responses.decode_ollama(broken)


def test_an_ollama_response_gives_vectors_and_tokens() -> None:
    answer = json.dumps({"model": "m", "embeddings": ROWS.tolist(), "prompt_eval_count": 9}).encode()
    found = responses.decode_ollama(answer)
    assert np.array_equal(found.matrix, ROWS)
    assert found.tokens == 9
    assert responses.decode_ollama(b'{"embeddings": []}').matrix.shape == (0, 0)


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
