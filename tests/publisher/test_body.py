"""The body of a PATCH: exact, always the same bytes, and small enough."""

from __future__ import annotations

import json
import re

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from common.wire.messages import Failure, Result
from stages.publisher.body import body, state_of

LARGEST_BODY = 100 * 1024
"""Bytes: the default limit of a NestJS application."""

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def vector(*values: float) -> Result:
    return Result("a", "text_embedding", 0.0, np.array(values, "<f4").tobytes())


def rendered(result: Result) -> list[str]:
    """The numbers of the body, as text."""
    found = re.fullmatch(rb'\{"state":"succeeded","result":\[(.*)\]\}', body(result))
    assert found
    return found[1].decode().split(",")


@given(st.lists(floats, min_size=1, max_size=50))
@example([0.1, -0.0, 1e-45, 3.4028234663852886e38, 1.1754943508222875e-38, 16777216.0, 1 / 3])
def test_the_api_reads_exactly_the_floats_that_the_provider_sent(values: list[float]) -> None:
    result = vector(*values)
    read = json.loads(body(result))["result"]
    assert np.array(read, "<f4").tobytes() == result.vector


@given(floats)
def test_each_float_is_written_in_its_shortest_form(value: float) -> None:
    (text,) = rendered(vector(value))
    shortest = str(np.float32(value))
    assert float(text) == float(shortest)
    assert len(re.sub(r"[^0-9]", "", text.split("e")[0]).strip("0")) <= len(
        re.sub(r"[^0-9]", "", shortest.split("e", maxsplit=1)[0]).strip("0")
    )


def test_one_tenth_is_written_as_one_tenth() -> None:
    assert rendered(vector(0.1, -0.25)) == ["0.1", "-0.25"]


@given(st.lists(floats, min_size=1, max_size=20))
def test_the_same_result_always_gives_the_same_bytes(values: list[float]) -> None:
    assert body(vector(*values)) == body(vector(*values))


def test_the_largest_vectors_fit_into_the_largest_body_of_the_api() -> None:
    for seed in range(5):
        values = np.random.default_rng(seed).standard_normal(3072).astype("<f4")
        values /= np.linalg.norm(values)
        assert len(body(vector(*values.tolist()))) < LARGEST_BODY / 2
    widest = vector(*[-1.17549435e-38] * 3072)
    assert len(body(widest)) < LARGEST_BODY


def test_a_document_is_passed_on_unchanged() -> None:
    result = Result("a", "summary", 0.0, document=b'{"summary": "short", "n": 1.50}')
    assert body(result) == b'{"state":"succeeded","result":{"summary": "short", "n": 1.50}}'
    assert state_of(result) == "succeeded"


def test_a_failed_result_has_an_error_code_and_a_message() -> None:
    result = Result("a", "text_embedding", 0.0, failure=Failure("invalid_content", 'no "text" — naïve'))
    assert json.loads(body(result)) == {
        "state": "failed",
        "result": {"error": {"code": "invalid_content", "message": 'no "text" — naïve'}},
    }
    assert state_of(result) == "failed"


def test_a_result_with_a_vector_is_succeeded() -> None:
    assert state_of(vector(1.0)) == "succeeded"
    assert json.loads(body(vector(1.0))) == {"state": "succeeded", "result": [1.0]}
