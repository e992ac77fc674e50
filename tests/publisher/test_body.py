"""The body of a PATCH: exact, always the same, and small enough."""

from __future__ import annotations

import json
import re

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from common.wire.messages import Failure, Result
from stages.publisher.body import body, state_of

LARGEST_BODY = 100 * 1024
"""Bytes: what a NestJS application takes if nobody tells it otherwise."""

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def vector(*values: float) -> Result:
    return Result("a", "text_embedding", 0.0, np.array(values, "<f4").tobytes())


def rendered(result: Result) -> list[str]:
    """The numbers as they are written."""
    found = re.fullmatch(rb'\{"state":"succeeded","result":\[(.*)\]\}', body(result))
    assert found
    return found[1].decode().split(",")


@given(st.lists(floats, min_size=1, max_size=50))
@example([0.1, -0.0, 1e-45, 3.4028234663852886e38, 1.1754943508222875e-38, 16777216.0, 1 / 3])
def test_what_the_api_reads_is_bit_for_bit_what_the_provider_gave(values: list[float]) -> None:
    result = vector(*values)
    read = json.loads(body(result))["result"]
    assert np.array(read, "<f4").tobytes() == result.vector


@given(floats)
def test_each_number_is_written_as_short_as_it_can_be(value: float) -> None:
    (text,) = rendered(vector(value))
    shortest = str(np.float32(value))
    assert float(text) == float(shortest)
    assert len(re.sub(r"[^0-9]", "", text.split("e")[0]).strip("0")) <= len(
        re.sub(r"[^0-9]", "", shortest.split("e", maxsplit=1)[0]).strip("0")
    )


def test_a_tenth_is_a_tenth() -> None:
    assert rendered(vector(0.1, -0.25)) == ["0.1", "-0.25"]


@given(st.lists(floats, min_size=1, max_size=20))
def test_the_same_result_gives_the_same_bytes(values: list[float]) -> None:
    assert body(vector(*values)) == body(vector(*values))


def test_the_largest_vectors_fit_into_what_the_api_takes() -> None:
    for seed in range(5):
        values = np.random.default_rng(seed).standard_normal(3072).astype("<f4")
        values /= np.linalg.norm(values)
        assert len(body(vector(*values.tolist()))) < LARGEST_BODY / 2
    widest = vector(*[-1.17549435e-38] * 3072)
    assert len(body(widest)) < LARGEST_BODY


def test_a_document_is_passed_on_as_it_is() -> None:
    result = Result("a", "summary", 0.0, document=b'{"summary": "short", "n": 1.50}')
    assert body(result) == b'{"state":"succeeded","result":{"summary": "short", "n": 1.50}}'
    assert state_of(result) == "succeeded"


def test_a_failure_has_a_code_and_a_sentence() -> None:
    result = Result("a", "text_embedding", 0.0, failure=Failure("invalid_content", 'no "text" — naïve'))
    assert json.loads(body(result)) == {
        "state": "failed",
        "result": {"error": {"code": "invalid_content", "message": 'no "text" — naïve'}},
    }
    assert state_of(result) == "failed"


def test_a_vector_has_succeeded() -> None:
    assert state_of(vector(1.0)) == "succeeded"
    assert json.loads(body(vector(1.0))) == {"state": "succeeded", "result": [1.0]}
