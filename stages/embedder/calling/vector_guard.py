"""The vector guard checks the vectors of a response, in one pass over the matrix.

There must be one row for each text. Each row must be finite, not zero, and as long as the earlier vectors of its model.
Its norm must be 1, because applications compare vectors with plain dot products: if a provider does not normalise its
vectors, the guard does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from common.process import metrics
from stages.embedder.providers import Embeddings, Matrix

TOLERANCE = 1e-4
"""How far from 1 a norm may be without being corrected: rounding gives 1e-6 in float32, 5e-4 in half precision."""
MAX_REMEMBERED = 10_000
"""Number of rejected texts to remember. A text that is forgotten costs one more request, and nothing else."""
COUNT = "wrong_count"
"""It is unknown which row belongs to which text."""
LENGTH = "wrong_length"
"""The vectors are longer or shorter than earlier ones of this model."""

Vector = NDArray[np.float32]
"""(d,) float32, with norm 1."""


class CheckedVectors:
    """The result of a check: a vector for each text, or the reason why there is none."""

    def __init__(self, vectors: list[Vector | None], rejected: dict[int, str], kind: str = "") -> None:
        self.vectors = vectors
        """One for each text, in their order; None if it was rejected."""
        self.rejected = rejected
        """Index of the text → the reason."""
        self.kind = kind
        """The label of the metric: `COUNT`, `LENGTH`, or what is wrong with a row; empty if all is well."""


class VectorGuard:
    """Checks vectors, and remembers how long those of each model are; used by all threads."""

    def __init__(self) -> None:
        self._lengths: dict[str, int] = {}
        self._rejected: dict[tuple[str, int], None] = {}

    def remember_rejected(self, model: str, texts: Iterable[str]) -> None:
        """Remember that the vectors of these texts were rejected once, until the texts come in another batch."""
        self._rejected.update(dict.fromkeys((model, hash(text)) for text in texts))
        while len(self._rejected) > MAX_REMEMBERED:
            self._rejected.pop(next(iter(self._rejected)), None)

    def take_rejected(self, model: str, texts: Sequence[str]) -> list[int]:
        """Return the positions of texts whose vectors were rejected before, and forget these."""
        if not self._rejected:
            return []
        keys = [(model, hash(text)) for text in texts]
        return [position for position, key in enumerate(keys) if self._rejected.pop(key, key) is None]

    def length_of(self, model: str) -> int | None:
        """How many numbers the model's vectors have; None if this is not known yet."""
        return self._lengths.get(model)

    def check(self, model: str, response: Embeddings, count: int, provider: str = "") -> CheckedVectors:
        """Check the response to a request with `count` texts; `provider` is a label of the metric."""
        checked = self._check(model, response, count)
        if checked.rejected:
            metrics.GUARD_VIOLATIONS.labels(provider, checked.kind).inc(len(checked.rejected))
        return checked

    def _check(self, model: str, response: Embeddings, count: int) -> CheckedVectors:
        matrix, positions = response.matrix, response.positions
        if not _matches(response, count):
            return _reject_all(count, f"{len(matrix)} vectors came back for {count} texts", COUNT)
        length = matrix.shape[1] if len(matrix) else 0
        expected = self._lengths.get(model, length)
        if len(matrix) and length != expected:
            reason = f"the vector has {length} numbers, those of {model} had {expected} before"
            return _reject_all(count, reason, LENGTH)
        matrix, reasons = _normalised(matrix)
        if length and len(reasons) < len(matrix):
            self._lengths.setdefault(model, length)
        if positions is None and not reasons:
            return CheckedVectors(list(matrix), {})
        vectors: list[Vector | None] = [None] * count
        rejected = dict.fromkeys(range(count), "no vector came back for it")
        kind = next(iter(reasons.values()), "missing")
        for row, position in enumerate(positions if positions is not None else range(count)):
            if row in reasons:
                rejected[position] = f"the vector is {reasons[row].replace('_', ' ')}"
            else:
                vectors[position] = matrix[row]
                del rejected[position]
        return CheckedVectors(vectors, rejected, kind if rejected else "")


def _matches(response: Embeddings, count: int) -> bool:
    """Whether it is known which text each row belongs to."""
    positions = response.positions
    if positions is None:
        return len(response.matrix) == count
    distinct = len(set(positions)) == len(positions) == len(response.matrix)
    return distinct and all(0 <= position < count for position in positions)


def _reject_all(count: int, reason: str, kind: str) -> CheckedVectors:
    return CheckedVectors([None] * count, dict.fromkeys(range(count), reason), kind)


def _normalised(matrix: Matrix) -> tuple[Matrix, dict[int, str]]:
    """Return the matrix with rows of norm 1; and, by row, why a row cannot be normalised."""
    with np.errstate(all="ignore"):
        squares = np.einsum("ij,ij->i", matrix, matrix)
        # NaN fails every comparison and infinity exceeds the bound, so one comparison finds all rows to look at
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
