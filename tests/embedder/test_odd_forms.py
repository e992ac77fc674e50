"""What compatible servers send instead of OpenAI's form is read as what it means, or refused."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.embedder.providers import odd_forms
from stages.embedder.providers.odd_forms import OddFormError

UNIT = np.random.default_rng(7).normal(size=96)
UNIT = (UNIT / np.linalg.norm(UNIT)).astype(np.float32)
PLAIN = base64.b64encode(UNIT.astype("<f4").tobytes()).decode()
DOUBLE = base64.b64encode(UNIT.astype("<f8").tobytes()).decode()


@pytest.mark.parametrize(
    "raw",
    [
        PLAIN,
        PLAIN.rstrip("="),
        PLAIN.replace("+", "-").replace("/", "_"),
        "\n".join(PLAIN[start : start + 76] for start in range(0, len(PLAIN), 76)),
        DOUBLE,
        DOUBLE.replace("+", "-").replace("/", "_").rstrip("="),
        [float(number) for number in UNIT],
        [str(float(number)) for number in UNIT],
        [[float(number) for number in UNIT]],
    ],
    ids=[
        "base64",
        "unpadded",
        "URL-safe",
        "line breaks",
        "float64",
        "float64, URL-safe",
        "numbers",
        "strings",
        "nested",
    ],
)
@pytest.mark.parametrize("length", [0, 96])
def test_every_form_of_a_vector_gives_the_same_vector(raw: Any, length: int) -> None:
    assert np.array_equal(odd_forms.vector(raw, length), UNIT)


@given(st.integers(1, 300), st.integers(0, 2**32 - 1), st.floats(1e-3, 30))
def test_float64_is_never_read_as_float32(dimensions: int, seed: int, scale: float) -> None:
    vector = np.random.default_rng(seed).normal(size=dimensions) * scale + 1e-6
    expected = vector.astype(np.float32)
    read = odd_forms.from_bytes(vector.astype("<f8").tobytes(), dimensions)
    assert np.array_equal(read, expected)
    assert np.array_equal(odd_forms.from_bytes(expected.astype("<f4").tobytes(), dimensions), expected)


@pytest.mark.parametrize("dimensions", [256, 384, 768, 1024, 1536, 3072])
@pytest.mark.parametrize("seed", range(5))
def test_float64_is_recognised_by_its_numbers_where_the_length_is_not_known(dimensions: int, seed: int) -> None:
    vector = np.random.default_rng(seed).normal(size=dimensions)
    vector /= np.linalg.norm(vector)
    assert len(odd_forms.from_bytes(vector.astype("<f8").tobytes())) == dimensions
    assert len(odd_forms.from_bytes(vector.astype("<f4").tobytes())) == dimensions


def test_whole_numbers_are_a_vector_too() -> None:
    assert odd_forms.vector([0, 1, 0]).tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("raw", [None, 5, {}, "not base64!", [1, "x"], [True], [[1], [2]], "AAAA" * 3 + "AA"])
def test_what_cannot_be_read_is_refused(raw: Any) -> None:
    with pytest.raises(OddFormError):
        odd_forms.vector(raw)


@pytest.mark.parametrize(
    ("indexes", "expected"),
    [
        ([0, 1, 2], None),
        ([None, None, None], None),
        ([0, 0, 0], None),
        ([1, 2, 3], None),
        ([2, 0, 1], [2, 0, 1]),
        ([3, 1, 2], [2, 0, 1]),
        (["0", "1", "2"], None),
        ([0.0, 2.0, 1.0], [0, 2, 1]),
        (["2", "1", "0"], [2, 1, 0]),
    ],
)
def test_vectors_are_ordered_by_what_is_consistent(indexes: list[Any], expected: list[int] | None) -> None:
    assert odd_forms.positions(indexes, 3) == expected


@pytest.mark.parametrize(
    "indexes", [[0, 1, 1], [0, None, 2], [5, 6, 7], [0, 1], [0, 1.5, 2], [-1, 0, 1], ["a", "b", "c"]]
)
def test_indexes_that_contradict_each_other_are_refused(indexes: list[Any]) -> None:
    with pytest.raises(OddFormError):
        odd_forms.positions(indexes, 3)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 7, "total_tokens": 9}, 7),
        ({"total_tokens": 9}, 9),
        ({"prompt_tokens": "7"}, 7),
        ({"prompt_tokens": 7.2}, 8),
        ({"prompt_tokens": 0, "total_tokens": 4}, 4),
        (None, None),
        ({}, None),
        ([], None),
        ("many", None),
        (True, None),
        ({"prompt_tokens": None}, None),
        ({"prompt_tokens": -1}, None),
        ({"prompt_tokens": 10**25}, None),
        ({"prompt_tokens": 2**63}, None),
        ({"prompt_tokens": float("inf")}, None),
        ({"prompt_tokens": float("nan")}, None),
        ({"prompt_tokens": "1e400"}, None),
        ({"prompt_tokens": {}}, None),
        ({"prompt_tokens": [1]}, None),
    ],
)
def test_a_usage_is_a_sensible_number_or_nothing(usage: Any, expected: int | None) -> None:
    assert odd_forms.tokens(usage) == expected


def test_more_tokens_than_the_texts_can_have_are_not_believed() -> None:
    assert odd_forms.tokens({"prompt_tokens": 50}, most=100) == 50
    assert odd_forms.tokens({"prompt_tokens": 101}, most=100) is None


@pytest.mark.parametrize(
    "before", [b"", b"\xef\xbb\xbf", b"\n\n  ", b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n", b"// note\n"]
)
def test_json_is_read_behind_a_bom_white_space_and_comments(before: bytes) -> None:
    assert odd_forms.json_value(before + json.dumps({"data": [1]}).encode()) == {"data": [1]}


def test_nan_is_read_as_pythons_json_writes_it() -> None:
    assert np.isnan(odd_forms.json_value(b'{"data": [NaN]}')["data"][0])


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_refused(body: bytes) -> None:
    with contextlib.suppress(OddFormError):
        odd_forms.json_value(body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20), st.lists, max_leaves=20
    )
)
def test_any_value_is_a_vector_or_refused(value: Any) -> None:
    with contextlib.suppress(OddFormError):
        assert odd_forms.vector(value).dtype == np.float32
    assert odd_forms.tokens(value) is None or odd_forms.tokens(value) > 0  # type: ignore[operator]
