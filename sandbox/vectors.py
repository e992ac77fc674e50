"""Unit vectors that depend only on the model's name and the text."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# splitmix64 (Steele, Lea, Flood 2014): one multiply-and-shift chain per component; no generator to set up.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def text_key(model: str, text: str) -> int:
    """A 64-bit hash of one text and one model."""
    return int.from_bytes(hashlib.blake2b(f"{model}\0{text}".encode(), digest_size=8).digest(), "little")


def embed(keys: Sequence[int], dimensions: int, noise: float = 0.0) -> npt.NDArray[np.float32]:
    """(n, dimensions) float32, each row of norm 1. Fewer dimensions give a prefix, as OpenAI's `dimensions` does."""
    steps = np.arange(1, dimensions + 1, dtype=np.uint64) * _GOLDEN
    bits = np.array(keys, dtype=np.uint64)[:, None] + steps
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    bits ^= bits >> np.uint64(31)
    vectors: npt.NDArray[np.float32] = (bits >> np.uint64(40)).astype(np.float32) - np.float32(2**23)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if noise:
        vectors += np.random.default_rng().normal(0.0, noise, vectors.shape).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
