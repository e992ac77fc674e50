"""The odd forms in which compatible servers send embeddings: read as what they mean or refused, never misread.

OpenAI's own form is decoded in `responses.py`, fast. What does not fit that form comes here: a BOM or comment lines
before the JSON; vectors as base64 of float64, URL-safe, unpadded or with line breaks, as numbers or as numeric strings;
an `index` that is missing, null, a string or a float, always 0, or counted from 1; a `usage` that is null, negative,
a string or absurd. Each rule is for a server that was seen to answer so.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
"""(d,) float32."""

MOST_TOKENS = 10**9
"""No request of at most 300,000 tokens reports more; a larger number is a mistake, and would upset the quotas."""
TOKENS_AROUND = 1000
"""Tokens that a server may add to a text: marks at its ends, and the instruction that some models need."""
LONGEST_VECTOR = 65_536
"""Numbers; the longest that EMBEDDING_DIMENSIONS can ask for."""
ROWS_TO_JUDGE = 8
"""Rows of a response that are looked at to tell float64 from float32; more than one, because one may be broken."""
ENOUGH_NUMBERS = 16
"""With fewer numbers, their sizes do not tell what type they are of."""
FLOAT32, FLOAT64, FLOAT16 = "<f4", "<f8", "<f2"
PLAUSIBLE = 1e4
"""No number of an embedding is larger: those of models that do not normalise are below 100."""

_BOM = b"\xef\xbb\xbf"
_COMMENT = (b":", b"//", b"#")
"""How comment lines before the JSON begin: `: OPENROUTER PROCESSING` and the like keep a connection alive."""
_SPACE = re.compile(r"\s+")


class OddFormError(ValueError):
    """What was sent cannot be read as embeddings without guessing; the sentence says why, without its content."""


def json_value(body: bytes) -> Any:
    """Decode JSON after a BOM, white space and comment lines, and with NaN; raises `OddFormError`."""
    text = body.removeprefix(_BOM).lstrip()
    while text.startswith(_COMMENT):
        text = text.partition(b"\n")[2].lstrip()
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        pass
    try:
        return json.loads(text)  # knows NaN and Infinity, as Python's json writes them
    except (ValueError, RecursionError) as error:
        raise OddFormError("it is not JSON") from error


def vector(raw: object, length: int = 0) -> Vector:
    """Read one vector; `length` is the number of dimensions if it is known, else 0. Raises `OddFormError`."""
    if isinstance(raw, str):
        return _from_base64(raw, length)
    if isinstance(raw, list) and len(raw) == 1 and isinstance(raw[0], list):
        raw = raw[0]  # some servers put each vector into a list of its own
    if not isinstance(raw, list):
        raise OddFormError("an embedding is neither a list of numbers nor base64")
    if len(raw) > LONGEST_VECTOR:
        raise OddFormError(f"an embedding has more than {LONGEST_VECTOR} numbers")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused as such
        return np.array([_number(value) for value in raw], dtype=np.float32)


def positions(indexes: Sequence[object], count: int) -> list[int] | None:
    """Where each vector belongs, from the `index` of each; None if they are simply in order.

    Raises `OddFormError` only for what contradicts itself: some numbered and some not, or numbers that fit no order.
    """
    numbers = [_index(value) for value in indexes]
    if len(numbers) != count:
        raise OddFormError(f"{len(numbers)} embeddings for {count} texts")
    if all(number is None for number in numbers) or set(numbers) == {0}:
        return None  # not numbered at all, or a server that always writes 0
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        raise OddFormError("some embeddings have an index and some have none")
    for first in (0, 1):
        if sorted(known) == list(range(first, first + count)):
            places = [number - first for number in known]
            return None if places == list(range(count)) else places
    raise OddFormError("the indexes of the embeddings contradict each other")


def bounded(count: int) -> int:
    """A number of tokens from any provider; 0, so that the estimate counts, for one that cannot be true."""
    return count if 0 <= count <= MOST_TOKENS else 0


def most_tokens(texts: Sequence[str]) -> int:
    """More tokens than these texts can have with any tokenizer: one for each byte, and an instruction before each."""
    return sum(4 * len(text) + TOKENS_AROUND for text in texts)


def tokens(usage: object, most: int = MOST_TOKENS) -> int | None:
    """The tokens that a `usage` reports; None where it says nothing usable, so that the estimate counts."""
    if isinstance(usage, dict):
        found = (_amount(usage.get(key), most) for key in ("prompt_tokens", "total_tokens", "input_tokens"))
        return next((amount for amount in found if amount), None)
    return _amount(usage, most) or None


def _amount(value: object, most: int) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return math.ceil(number) if math.isfinite(number) and 0 <= number <= min(most, MOST_TOKENS) else None


def _index(value: object) -> int | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not number.is_integer() or abs(number) > 2**31:
        raise OddFormError("an index is not a whole number")
    return int(number)


def _number(value: object) -> float:
    if value is None:
        return math.nan  # what some servers write for NaN
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise OddFormError("an embedding has an element that is not a number")
    try:
        return float(value)
    except (ValueError, OverflowError) as error:
        raise OddFormError("an embedding has an element that is not a number") from error


def _from_base64(text: str, length: int) -> Vector:
    packed = _SPACE.sub("", text).rstrip("=").replace("-", "+").replace("_", "/")
    if len(packed) > LONGEST_VECTOR * 11:
        raise OddFormError(f"an embedding has more than {LONGEST_VECTOR} numbers")
    try:
        raw = base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise OddFormError("an embedding is a string, and not base64") from error
    return from_bytes(raw, length)


def from_bytes(raw: bytes, length: int = 0) -> Vector:
    """Read little-endian float32, or float64 or float16 where the number of bytes and the numbers themselves say so."""
    if len(raw) % 2 or len(raw) > LONGEST_VECTOR * 8:
        raise OddFormError(f"{len(raw)} bytes of base64 are not a vector of float32")
    return _read(raw, kind_of([raw], length))


def kind_of(rows: Sequence[bytes], length: int = 0) -> str:
    """The type of the numbers in the rows of one response, all of one size; `length` as in `vector`.

    A row whose norm is 1 as float32 settles it, so this costs a microsecond for a usual response. Raises
    `OddFormError` if the bytes cannot be an embedding in any of the three types.
    """
    size = len(rows[0]) if rows else 0
    if not size or size == length * 4:
        return FLOAT32
    rows = rows[:ROWS_TO_JUDGE]
    singles: list[Vector] = []
    if size % 4 == 0:
        singles = [np.frombuffer(raw, FLOAT32) for raw in rows]
        if any(_is_unit(single) for single in singles):
            return FLOAT32
        if size == length * 8:
            return FLOAT64
        if any(map(_plausible, singles)):
            return FLOAT32
    for kind, is_possible in ((FLOAT64, size % 8 == 0), (FLOAT16, size % 4 or size == length * 2)):
        if is_possible and any(_plausible(_read(raw, kind)) for raw in rows):
            return kind
    if size % 4 or (size >= 4 * ENOUGH_NUMBERS and all(map(_is_nonsense, singles))):
        raise OddFormError(f"{size} bytes of base64 are not a vector of float32")
    return FLOAT32  # with zeros or NaN, which are refused as such


def _is_unit(vector: Vector) -> bool:
    """Whether the norm is 1. Float64 read as float32 has a norm above 1.4, if there are enough numbers to tell."""
    if vector.size < ENOUGH_NUMBERS:
        return False
    with np.errstate(all="ignore"):
        return abs(float(np.dot(vector, vector)) - 1.0) < 0.02


def _read(raw: bytes, kind: str) -> Vector:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.frombuffer(raw, kind).astype(np.float32)


def _is_nonsense(vector: Vector) -> bool:
    """Whether the numbers have sizes that no embedding has: bytes of another type."""
    sizes = np.abs(vector[np.isfinite(vector) & (vector != 0)])
    return bool(sizes.size) and not 1e-9 <= float(np.median(sizes)) <= PLAUSIBLE


def _plausible(vector: Vector) -> bool:
    """Whether these can be an embedding's numbers: halves of float64 read as float32 have exponents of any size."""
    if not np.isfinite(vector).all():
        return False
    sizes = np.abs(vector[vector != 0])
    return bool(sizes.size) and float(sizes.max()) <= PLAUSIBLE and float(np.median(sizes)) >= 1e-9
