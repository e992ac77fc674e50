"""The vector guard: whether an answer's vectors are what they should be, in one pass over the matrix.

Rows must match the texts, be finite, not zero, and as long as this model's vectors have been before; and of length one,
because those who compare them take plain dot products. A provider that does not normalise is helped out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from common.process import metrics
from stages.embedder.providers import Embeddings, Matrix

TOLERANCE = 1e-4
"""How far from 1 a norm may be and still be left as it came: float32 rounding gives 1e-6, half precision 5e-4."""
MOST_DOUBTED = 10_000
"""Texts; one that is forgotten is asked for once more, that is all."""
COUNT = "wrong_count"
LENGTH = "wrong_length"

Vector = NDArray[np.float32]
"""(d,) float32, of norm 1."""


class Checked:
    """What came of an answer: for each text a vector, or what is wrong with it."""

    def __init__(self, vectors: list[Vector | None], wrong: dict[int, str], kind: str = "") -> None:
        self.vectors = vectors
        self.wrong = wrong
        self.kind = kind
        """Of what is wrong: `COUNT` if nobody can tell which row belongs to which text; empty if nothing is."""


class Guard:
    """Remembers how long each model's vectors are; used by all threads."""

    def __init__(self) -> None:
        self._lengths: dict[str, int] = {}
        self._doubted: dict[tuple[str, int], None] = {}

    def remember(self, model: str, texts: Iterable[str]) -> None:
        """Keep in mind that it has objected to these, until they come in another batch."""
        self._doubted.update(dict.fromkeys((model, hash(text)) for text in texts))
        while len(self._doubted) > MOST_DOUBTED:
            self._doubted.pop(next(iter(self._doubted)), None)

    def recall(self, model: str, texts: Sequence[str]) -> list[int]:
        """Return where those are that it has objected to before, and forget them."""
        if not self._doubted:
            return []
        keys = [(model, hash(text)) for text in texts]
        return [position for position, key in enumerate(keys) if self._doubted.pop(key, key) is None]

    def length_of(self, model: str) -> int | None:
        """How long the model's vectors have been so far."""
        return self._lengths.get(model)

    def check(self, model: str, answer: Embeddings, count: int, provider: str = "") -> Checked:
        """Check the answer to a request of `count` texts."""
        checked = self._check(model, answer, count)
        if checked.wrong:
            metrics.GUARD_VIOLATIONS.labels(provider, checked.kind).inc(len(checked.wrong))
        return checked

    def _check(self, model: str, answer: Embeddings, count: int) -> Checked:
        matrix, positions = answer.matrix, answer.positions
        if not _matches(answer, count):
            return _all_wrong(count, f"{len(matrix)} vectors came back for {count} texts", COUNT)
        length = matrix.shape[1] if len(matrix) else 0
        expected = self._lengths.get(model, length)
        if len(matrix) and length != expected:
            said = f"the vector has {length} numbers, those of {model} had {expected} before"
            return _all_wrong(count, said, LENGTH)
        matrix, reasons = _norms(matrix)
        if length and len(reasons) < len(matrix):
            self._lengths.setdefault(model, length)
        if positions is None and not reasons:
            return Checked(list(matrix), {})
        vectors: list[Vector | None] = [None] * count
        wrong = dict.fromkeys(range(count), "no vector came back for it")
        kind = next(iter(reasons.values()), "missing")
        for row, position in enumerate(positions if positions is not None else range(count)):
            if row in reasons:
                wrong[position] = f"the vector is {reasons[row].replace('_', ' ')}"
            else:
                vectors[position] = matrix[row]
                del wrong[position]
        return Checked(vectors, wrong, kind if wrong else "")


def _matches(answer: Embeddings, count: int) -> bool:
    """Whether it is known of each row which text it belongs to."""
    positions = answer.positions
    if positions is None:
        return len(answer.matrix) == count
    distinct = len(set(positions)) == len(positions) == len(answer.matrix)
    return distinct and all(0 <= position < count for position in positions)


def _all_wrong(count: int, why: str, kind: str) -> Checked:
    return Checked([None] * count, dict.fromkeys(range(count), why), kind)


def _norms(matrix: Matrix) -> tuple[Matrix, dict[int, str]]:
    """Return the matrix with rows of norm 1, and what is wrong with the rows that cannot be had so."""
    with np.errstate(all="ignore"):
        squares = np.einsum("ij,ij->i", matrix, matrix)
        # NaN and infinity fail every comparison or exceed it, so the usual case needs no second look
        odd = np.flatnonzero(~(np.abs(squares - 1) <= TOLERANCE))
    if not len(odd):
        return matrix, {}
    rows = matrix[odd].astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    reasons: dict[int, str] = {}
    matrix = matrix.copy()
    for row, values, norm in zip(odd.tolist(), rows, norms.tolist(), strict=True):
        if not np.isfinite(values).all():
            reasons[row] = "not_finite"
        elif norm == 0:
            reasons[row] = "zero"
        else:
            matrix[row] = values / norm
    return matrix, reasons
