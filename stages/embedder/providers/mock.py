"""Mock vectors without meaning: the same for the same model and text on every machine, and of norm one.

A row is a window of `_VALUES` times a window of `_SIGNS`; a 64-bit hash of model and text says where both begin, and
flips the signs of the first 32 numbers. Two different texts thus have a cosine near 0. Everything is integers, single
multiplications and a running sum, which IEEE 754 defines to the bit, so the
result does not depend on the order in which a processor adds numbers. The norm of signs times values is the norm of the
window of values, which is known beforehand.

It is in the path of the benchmark: about 2 µs for a vector of 1,536 numbers in batches of 256, half of it the hash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from common.settings.settings import Settings
from stages.embedder.providers import Caps, Embeddings, Matrix
from stages.embedder.providers.model_lengths import known_length

_WINDOWS: Final = 2**16
_LONGEST: Final = 65_536
_FLIPS: Final = 32


def _tables() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Values in [-1, 1), signs, and the running sum of the values' squares.

    Raw output of PCG64, which NumPy promises never to change; `Generator`'s methods may (NEP 19).
    """
    length = _WINDOWS + _LONGEST
    bits = np.random.PCG64(20_261_101).random_raw(length)
    values = ((bits >> np.uint64(40)).astype(np.float32) - np.float32(2**23)) / np.float32(2**23)
    signs = (bits & np.uint64(1)).astype(np.float32) * np.float32(2) - np.float32(1)
    squares = np.concatenate(([0.0], np.cumsum(values.astype(np.float64) ** 2)))
    return values, signs, squares


_VALUES, _SIGNS, _SQUARES = _tables()


def dimensions_of(model: str) -> int:
    """The length of a model's vectors; 1,536 for an unknown model, 3,072 if its name ends in `-large`."""
    name = model.lower().rpartition("/")[2]
    known = known_length(model) or known_length(name) or known_length(name.partition(":")[0])
    return known or (3072 if name.endswith("-large") else 1536)


def vectors(model: str, texts: Sequence[str], dimensions: int | None = None) -> Matrix:
    """Embed: (n, d) float32, rows of norm 1; fewer dimensions give the beginning of the longer vector, normalised."""
    return _rows(model, [text.encode() for text in texts], dimensions or dimensions_of(model))


def _rows(model: str, texts: Sequence[bytes], dimensions: int) -> Matrix:
    key = blake2b(model.encode(), digest_size=32).digest()
    hashes = b"".join([blake2b(text, digest_size=8, key=key).digest() for text in texts])
    starts = np.frombuffer(hashes, dtype="<u2").reshape(-1, 4)
    matrix = np.empty((len(texts), dimensions), dtype=np.float32)
    multiply: Any = np.multiply  # called once a row: passing `out` by position saves a third of it
    for row, (value, sign, _, _) in zip(matrix, starts.tolist(), strict=True):
        multiply(_VALUES[value : value + dimensions], _SIGNS[sign : sign + dimensions], row)
    flips = np.unpackbits(np.ascontiguousarray(starts[:, 2:]).view(np.uint8), axis=1)[:, : min(_FLIPS, dimensions)]
    matrix[:, :_FLIPS] *= np.float32(1) - np.float32(2) * flips
    first = starts[:, 0].astype(np.intp)
    norms = np.sqrt(_SQUARES[first + dimensions] - _SQUARES[first])
    matrix *= (1.0 / norms).astype(np.float32)[:, np.newaxis]
    return matrix


class Mock:
    """The provider of the mode `mock`."""

    name = "mock"
    caps = Caps(inputs=2048, tokens=2**62)
    free = True
    vendor = "mock"

    def __init__(self, settings: Settings) -> None:
        self._dimensions = settings.embedding_dimensions

    def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Make the vectors; four bytes count as one token."""
        encoded = [text.encode() for text in texts]
        own = dimensions_of(model)
        wanted = self._dimensions if self._dimensions and not model.endswith("ada-002") else own
        tokens = sum([len(text) // 4 or 1 for text in encoded])
        return Embeddings(_rows(model, encoded, min(wanted, _LONGEST)), tokens)

    def has(self, model: str) -> bool:  # noqa: ARG002  it has every model
        """Return True: it has every model."""
        return True

    def notices(self) -> Mapping[str, str]:
        """Return nothing: there are no messages about models."""
        return {}

    def close(self) -> None:
        """Do nothing: there is nothing to close."""
