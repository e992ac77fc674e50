"""Decode the bodies of responses: vectors into one matrix, errors into their message.

The SDK's list of floats costs 123 µs for an input of 1,536 numbers (measured for the design); here msgspec decodes the
base64 while it parses, and one copy makes the matrix: 8 µs. Servers without base64 send lists of numbers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np

from common.failures.errors import Transient
from stages.embedder.providers import Embeddings, Matrix

Numbers = list[float | None]
"""A vector as JSON; some servers write null for NaN."""


class _Item(msgspec.Struct, gc=False):
    embedding: bytes | Numbers
    """Base64 of little-endian float32, or numbers."""
    index: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _OpenAI(msgspec.Struct):
    data: list[_Item]
    usage: _Usage | None = None


class _Ollama(msgspec.Struct):
    embeddings: list[Numbers]
    prompt_eval_count: int | None = None


class ErrorBody(msgspec.Struct):
    """The fields of an error body; empty where it does not have them."""

    message: str = ""
    code: str = ""
    """`code` and `type` together, in lower case: compatible servers use one or the other."""
    param: str = ""
    """The field of the request that is refused."""


T = TypeVar("T")


def decode_openai(body: bytes, count: int) -> Embeddings:
    """Decode the response to a request of `count` texts; raises `Transient` if it is not valid."""
    response = _decode(body, _OpenAI)
    indexes = [item.index for item in response.data]
    positions: list[int] | None = None
    if indexes != list(range(count)):
        numbered = [index for index in indexes if index is not None]
        positions = numbered if len(numbered) == len(indexes) and indexes else None
    usage = response.usage or _Usage()
    tokens = usage.prompt_tokens or usage.total_tokens or 0
    return Embeddings(_matrix([item.embedding for item in response.data]), tokens, positions)


def decode_ollama(body: bytes) -> Embeddings:
    """Decode Ollama's response; raises `Transient` if it is not valid."""
    response = _decode(body, _Ollama)
    return Embeddings(_matrix(response.embeddings), response.prompt_eval_count or 0)


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        if b"NaN" in body or b"Infinity" in body:  # Python's json writes these, though JSON does not have them
            try:
                return msgspec.convert(json.loads(body), kind)
            except (ValueError, msgspec.MsgspecError):
                pass
        what = "an HTML page" if body.lstrip()[:1] == b"<" else "JSON that is cut short or not a list of embeddings"
        raise Transient(f"the response ({len(body)} bytes, status 200) is {what}") from error


def _matrix(rows: Sequence[bytes | Numbers]) -> Matrix:
    """Put the rows into one matrix, (n, d) float32; a row of another length than most becomes NaN."""
    arrays = [row if isinstance(row, bytes) else np.array(row, dtype="<f4").tobytes() for row in rows]
    lengths = Counter(map(len, arrays))
    if not lengths:
        return np.empty((0, 0), dtype=np.float32)
    length = lengths.most_common(1)[0][0] // 4 * 4
    if len(lengths) > 1 or length not in lengths:
        broken = np.full(length // 4, np.nan, dtype="<f4").tobytes()
        arrays = [row if len(row) == length else broken for row in arrays]
    matrix = np.frombuffer(bytearray().join(arrays), dtype="<f4").reshape(len(arrays), length // 4)
    return matrix.astype(np.float32, copy=False)


def error_body(body: bytes) -> ErrorBody:
    """Read an error body: OpenAI's `error` object, a plain string, or the `detail` or `message` of a gateway."""
    try:
        value: Any = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        text = body[:4000].decode(errors="replace").strip()
        return ErrorBody("an HTML page" if text.startswith("<") else text)
    if isinstance(value, dict):
        inner = (value.get(key) for key in ("error", "detail", "errors"))
        value = next((found for found in inner if found and isinstance(found, dict | list)), value)
    if isinstance(value, list) and value:  # FastAPI: [{"loc": ["body", "dimensions"], "msg": "…", "input": …}]
        value = value[0]
    if not isinstance(value, dict):
        return ErrorBody(str(value) if value else "")
    message = next((value[key] for key in ("message", "msg", "detail", "error") if value.get(key)), "")
    place = value.get("loc")
    param = place[-1] if isinstance(place, list) and place else value.get("param")
    code = " ".join(str(value[key]) for key in ("code", "type") if value.get(key))
    return ErrorBody(str(message), code.lower(), str(param or ""))


def has_error(body: bytes) -> bool:
    """Whether a body with status 200 contains an error. A long body is not checked: errors are short."""
    if len(body) > 4096:
        return False
    try:
        value = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        return False
    return isinstance(value, dict) and not value.keys() & {"data", "embeddings"}
