"""The vector guard checks the vectors of a response, in one pass over the matrix.

There must be one row for each text. Each row must be finite, not zero, and as long as the vectors of its model must be
(vector_lengths.py). Its norm must be 1, because applications compare vectors with plain dot products: if a provider
does not normalise its vectors, the guard does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.process import metrics
from stages.embedder.calling.vector_lengths import VectorLengths, remedy
from stages.embedder.providers import Embeddings, Matrix

TOLERANCE = 1e-4
"""How far from 1 a norm may be without being corrected: rounding gives 1e-6 in float32, 5e-4 in half precision."""
MAX_REMEMBERED = 10_000
"""Number of rejected texts to remember. A text that is forgotten costs one more request, and nothing else."""
COUNT = "wrong_count"
"""It is unknown which row belongs to which text."""
LENGTH = "wrong_length"
"""The vectors are longer or shorter than those of this model must be."""

Vector = NDArray[np.float32]
"""(d,) float32, with norm 1."""


class CheckedVectors:
    """The result of a check: a vector for each text, or the reason why there is none."""

    def __init__(
        self,
        vectors: list[Vector | None],
        rejected: dict[int, str],
        kind: str = "",
        wrong_length: frozenset[int] = frozenset(),
    ) -> None:
        self.vectors = vectors
        """One for each text, in their order; None if it was rejected."""
        self.rejected = rejected
        """Index of the text → the reason."""
        self.kind = kind
        """The label of the metric: `COUNT`, `LENGTH`, or what is wrong with a row; empty if all is well."""
        self.wrong_length = wrong_length
        """Indexes of the texts that were rejected for their vector's length: this is never a text's fault."""


class VectorGuard:
    """Checks vectors, and remembers which texts were rejected and what was served; used by all threads."""

    def __init__(self, lengths: VectorLengths | None = None) -> None:
        self.lengths = lengths or VectorLengths()
        self._seen: dict[str, int] = {}
        self._rejected: dict[tuple[str, int], None] = {}
        self._order = itertools.count(1)
        """Numbers what happens, so that it is known what came first."""
        self._first_rejected: dict[tuple[str, int], int] = {}
        self._last_served: dict[tuple[str, str], int] = {}

    def remember_rejected(self, model: str, texts: Iterable[str]) -> None:
        """Remember that the vectors of these texts were rejected once, until the texts come in another batch."""
        self._rejected.update(dict.fromkeys((model, hash(text)) for text in texts))
        _shorten(self._rejected)

    def take_rejected(self, model: str, texts: Sequence[str]) -> list[int]:
        """Return the positions of texts whose vectors were rejected before, and forget these."""
        if not self._rejected:
            return []
        keys = [(model, hash(text)) for text in texts]
        return [position for position, key in enumerate(keys) if self._rejected.pop(key, key) is None]

    def note_rejected(self, model: str, text: str) -> bool:
        """Note that the text's vector was rejected; return whether it was not before."""
        key, number = (model, hash(text)), next(self._order)
        is_first = self._first_rejected.setdefault(key, number) == number
        _shorten(self._first_rejected)
        return is_first

    def note_served(self, provider: str, model: str) -> None:
        """Note that the provider has just sent a usable vector for the model."""
        self._last_served[provider, model] = next(self._order)
        _shorten(self._last_served)
        self.lengths.trust(provider, model)

    def was_served_since(self, provider: str, model: str, task_model: str, texts: Iterable[str]) -> bool:
        """Whether the provider has sent a usable vector after each of these texts was rejected first."""
        served = self._last_served.get((provider, model), 0)
        return all(self._first_rejected.get((task_model, hash(text)), served) < served for text in texts)

    def length_of(self, model: str) -> int | None:
        """How many numbers the model's vectors have; None if this is not known yet."""
        return self.lengths.length_of(model) or self._seen.get(model)

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
        if length and (objection := self._objection(model, length, response.asked)):
            reason = f"the vector has {length} numbers, but {objection}; {remedy(model, length)}"
            return _reject_all(count, reason, LENGTH)
        matrix, reasons = _normalised(matrix)
        if length and len(reasons) < len(matrix):
            self._seen.setdefault(model, length)
            _shorten(self._seen)
        if positions is None and not reasons:
            return CheckedVectors(list(matrix), {})
        return _sorted_out(response._replace(matrix=matrix), reasons, count)

    def _objection(self, model: str, length: int, asked: int) -> str:
        """Why the length is wrong; empty if it is right. Where nothing is known, the first vectors count."""
        found = self.lengths.objection(model, length, asked)
        if found is not None:
            return found
        seen = self._seen.get(model, length)
        return "" if length == seen else f"those of {model} had {seen} before"


def _sorted_out(response: Embeddings, reasons: dict[int, str], count: int) -> CheckedVectors:
    """Give each text its row, or the reason why it has none; `reasons` by row."""
    vectors: list[Vector | None] = [None] * count
    rejected = dict.fromkeys(range(count), "no vector came back for it")
    wrong_length: set[int] = set()
    kind = next(iter(reasons.values()), "missing")
    for row, position in enumerate(response.positions if response.positions is not None else range(count)):
        if row in response.other_lengths:
            length = response.other_lengths[row]
            rejected[position] = f"the vector has {length} numbers, and others of the same response have not"
            wrong_length.add(position)
            kind = LENGTH
        elif row in reasons:
            rejected[position] = f"the vector is {reasons[row].replace('_', ' ')}"
        else:
            vectors[position] = response.matrix[row]
            del rejected[position]
    return CheckedVectors(vectors, rejected, kind if rejected else "", frozenset(wrong_length))


def _shorten(remembered: dict[Any, Any]) -> None:
    while len(remembered) > MAX_REMEMBERED:
        remembered.pop(next(iter(remembered)), None)


def _matches(response: Embeddings, count: int) -> bool:
    """Whether it is known which text each row belongs to."""
    positions = response.positions
    if positions is None:
        return len(response.matrix) == count
    distinct = len(set(positions)) == len(positions) == len(response.matrix)
    return distinct and all(0 <= position < count for position in positions)


def _reject_all(count: int, reason: str, kind: str) -> CheckedVectors:
    wrong_length = frozenset(range(count)) if kind == LENGTH else frozenset()
    return CheckedVectors([None] * count, dict.fromkeys(range(count), reason), kind, wrong_length)


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
