"""The vector guard accepts, normalises or rejects the vectors of a response."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.embedder.calling.vector_guard import COUNT, LENGTH, TOLERANCE, VectorGuard
from stages.embedder.providers import Embeddings, Matrix, mock


def matrix(rows: int = 4, dimensions: int = 16) -> Matrix:
    return mock.vectors("m", [str(number) for number in range(rows)], dimensions)


def test_good_vectors_are_not_changed() -> None:
    good = matrix()
    checked = VectorGuard().check("m", Embeddings(good, 1), 4)
    assert not checked.rejected
    assert np.array_equal(np.array(checked.vectors), good)


@pytest.mark.parametrize("factor", [3.0, 1e-20, 1e30, -2.0, 1 + 3 * TOLERANCE])
def test_vectors_of_any_norm_are_normalised(factor: float) -> None:
    given_ = matrix()
    given_[1] *= np.float32(factor)
    before = given_.copy()
    checked = VectorGuard().check("m", Embeddings(given_, 1), 4)
    assert not checked.rejected
    assert np.allclose(
        np.array(checked.vectors), matrix() * np.array([[1], [math.copysign(1, factor)], [1], [1]]), atol=1e-6
    )
    assert np.array_equal(given_, before), "the response itself is not changed"


@given(st.integers(0, 3), st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 15))
def test_a_number_that_is_not_finite_rejects_its_row_only(row: int, value: float, column: int) -> None:
    bad = matrix()
    bad[row, column] = value
    checked = VectorGuard().check("m", Embeddings(bad, 1), 4)
    assert checked.rejected == {row: "the vector is not finite"}
    assert [vector is None for vector in checked.vectors] == [number == row for number in range(4)]


def test_zero_vectors_and_empty_vectors_are_rejected() -> None:
    bad = matrix()
    bad[2] = 0
    assert VectorGuard().check("m", Embeddings(bad, 1), 4).rejected == {2: "the vector is zero"}
    empty = Embeddings(np.empty((4, 0), np.float32), 1)
    guard = VectorGuard()
    assert len(guard.check("m", empty, 4).rejected) == 4
    assert not guard.check("m", Embeddings(matrix(), 1), 4).rejected, "an empty vector sets no length"


def test_the_length_of_the_vectors_is_remembered_for_each_model() -> None:
    guard = VectorGuard()
    assert not guard.check("m", Embeddings(matrix(), 1), 4).rejected
    assert not guard.check("other", Embeddings(matrix(dimensions=8), 1), 4).rejected
    checked = guard.check("m", Embeddings(matrix(dimensions=8), 1), 4)
    assert checked.kind == LENGTH
    assert len(checked.rejected) == 4


@pytest.mark.parametrize(
    ("rows", "positions"),
    [(3, None), (5, None), (0, None), (5, [0, 1, 2, 3, 4]), (4, [0, 0, 1, 2]), (4, [0, 1, 2, 7]), (4, [-1, 0, 1, 2])],
)
def test_all_rows_are_rejected_if_they_cannot_be_matched_with_the_texts(rows: int, positions: list[int] | None) -> None:
    checked = VectorGuard().check("m", Embeddings(matrix(rows), 1, positions), 4)
    assert checked.kind == COUNT
    assert sorted(checked.rejected) == [0, 1, 2, 3]


def test_numbered_rows_may_come_in_any_order_and_be_incomplete() -> None:
    rows = matrix()
    checked = VectorGuard().check("m", Embeddings(rows[[2, 0, 3]], 1, [2, 0, 3]), 4)
    assert checked.rejected == {1: "no vector came back for it"}
    for position in (0, 2, 3):
        assert np.array_equal(np.asarray(checked.vectors[position]), rows[position])
