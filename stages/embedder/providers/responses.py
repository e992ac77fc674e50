"""Decode the bodies of responses: vectors into one matrix, errors into their message.

The SDK's list of floats costs 123 µs for an input of 1,536 numbers (docs/architecture.md, section 9); here msgspec
decodes the base64 while it parses, and one copy makes the matrix: 8 µs. Servers without base64 send lists of numbers. A
response that does not fit is read by odd_forms.py, which is slower.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from common.failures.errors import Transient
from stages.embedder.providers import Embeddings, Matrix, odd_forms
from stages.embedder.providers.odd_forms import MOST_TOKENS, OddFormError

Numbers = list[float | None]
"""A vector as JSON; some servers write null for NaN."""


class _Rows(NamedTuple):
    """The vectors of a response."""

    matrix: Matrix
    other_lengths: Mapping[int, int] = {}
    """See `Embeddings`."""


class _Item(msgspec.Struct, gc=False):
    embedding: bytes | Numbers
    """Base64 of little-endian float32, or numbers."""
    index: Any = None


class _OpenAI(msgspec.Struct):
    data: list[_Item]
    usage: Any = None


class _Ollama(msgspec.Struct):
    embeddings: list[Numbers]
    prompt_eval_count: Any = None


class ErrorBody(msgspec.Struct):
    """The fields of an error body; empty where it does not have them."""

    message: str = ""
    code: str = ""
    """`code` and `type` together, in lower case: compatible servers use one or the other."""
    param: str = ""
    """The field of the request that is refused."""


def decode_openai(body: bytes, count: int, length: int = 0, most_tokens: int = MOST_TOKENS) -> Embeddings:
    """Decode the response to a request of `count` texts; raises `Transient` if it cannot be read without guessing.

    `length` is the number of dimensions, 0 if it is not known: it tells float32 from float64. A `usage` above
    `most_tokens` is ignored.
    """
    try:
        try:
            response = msgspec.json.decode(body, type=_OpenAI)
            rows = _matrix([item.embedding for item in response.data], length)
            indexes, usage = [item.index for item in response.data], response.usage
        except msgspec.MsgspecError:
            rows, indexes, usage = _odd_openai(odd_forms.json_value(body), length)
        positions = None if indexes == list(range(count)) else _positions(indexes, count)
    except OddFormError as error:
        raise _unreadable(body, error) from error
    tokens = odd_forms.tokens(usage, most_tokens) or 0
    return Embeddings(rows.matrix, tokens, positions, other_lengths=rows.other_lengths)


def decode_ollama(body: bytes, length: int = 0, most_tokens: int = MOST_TOKENS) -> Embeddings:
    """Decode Ollama's response; parameters and errors are those of `decode_openai`."""
    try:
        try:
            response = msgspec.json.decode(body, type=_Ollama)
            rows, usage = _matrix(response.embeddings, length), response.prompt_eval_count
        except msgspec.MsgspecError:
            value = odd_forms.json_value(body)
            if not isinstance(value, dict) or not isinstance(found := value.get("embeddings"), list):
                raise OddFormError("it has no list of embeddings") from None
            rows, usage = _odd_matrix(_flat(found), length), value.get("prompt_eval_count")
    except OddFormError as error:
        raise _unreadable(body, error) from error
    tokens = odd_forms.tokens(usage, most_tokens) or 0
    return Embeddings(rows.matrix, tokens, other_lengths=rows.other_lengths)


def _unreadable(body: bytes, error: OddFormError) -> Transient:
    what = "an HTML page" if body.lstrip()[:1] == b"<" else f"cut short, or not what is understood: {error}"
    return Transient(f"the response ({len(body)} bytes, status 200) is {what}")


def _odd_openai(value: Any, length: int) -> tuple[_Rows, list[Any], Any]:
    """Take the vectors, their indexes and the usage from a response that is not in OpenAI's own form."""
    if not isinstance(value, dict) or "data" not in value:
        raise OddFormError("it has no list of embeddings")
    data = _flat([] if value["data"] is None else value["data"])
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise OddFormError("its data is not a list of embeddings")
    if data and not any("embedding" in item for item in data):
        raise OddFormError("its data is not a list of embeddings")
    rows = _odd_matrix([item.get("embedding") for item in data], length)
    return rows, [item.get("index") for item in data], value.get("usage")


def _flat(rows: Any) -> Any:
    """The rows, which some servers put into a list of their own, one level too deep."""
    is_nested = isinstance(rows, list) and len(rows) == 1 and isinstance(rows[0], list) and rows[0]
    return rows[0] if is_nested and isinstance(rows[0][0], dict | list) else rows


def _odd_matrix(rows: Sequence[object], length: int) -> _Rows:
    """Read rows in odd forms; a row that cannot be read becomes NaN if others can be read."""
    vectors: list[bytes] = []
    problem: OddFormError | None = None
    for row in rows:
        try:
            vectors.append(b"" if row is None else odd_forms.vector(row, length).astype("<f4").tobytes())
        except OddFormError as error:
            problem = error
            vectors.append(b"")
    if problem and not any(vectors):
        raise problem
    return _join(vectors, size=_usual_size(list(filter(None, vectors))), kind=np.dtype(odd_forms.FLOAT32))


def _positions(indexes: Sequence[object], count: int) -> list[int] | None:
    if len(indexes) == count:
        return odd_forms.positions(indexes, count)
    numbered = [index for index in indexes if isinstance(index, int)]
    # too few or too many: which texts they belong to is known only if they are certainly counted from 0
    return numbered if len(numbered) == len(indexes) and 0 in numbered else None


def _matrix(rows: Sequence[bytes | Numbers], length: int) -> _Rows:
    """Put the rows into one matrix, (n, d) float32; a row of another length than most becomes NaN."""
    with np.errstate(over="ignore"):
        arrays = [row if isinstance(row, bytes) else np.array(row, dtype="<f4").tobytes() for row in rows]
    size = _usual_size(arrays)
    judged = [row for row in rows[: odd_forms.ROWS_TO_JUDGE] if isinstance(row, bytes) and len(row) == size]
    return _join(arrays, size=size, kind=np.dtype(odd_forms.kind_of(judged, length)))


def _usual_size(arrays: Sequence[bytes]) -> int:
    """The number of bytes that most rows have."""
    return Counter(map(len, arrays)).most_common(1)[0][0] if arrays else 0


def _join(arrays: Sequence[bytes], *, size: int, kind: np.dtype[Any]) -> _Rows:
    if not arrays:
        return _Rows(np.empty((0, 0), dtype=np.float32))
    size = size // kind.itemsize * kind.itemsize
    others: dict[int, int] = {}
    if any(len(row) != size for row in arrays):
        others = {i: len(row) // kind.itemsize for i, row in enumerate(arrays) if row and len(row) != size}
        broken = np.full(size // kind.itemsize, np.nan, dtype=kind).tobytes()
        arrays = [row if len(row) == size else broken for row in arrays]
    matrix = np.frombuffer(bytearray().join(arrays), dtype=kind).reshape(len(arrays), size // kind.itemsize)
    with np.errstate(over="ignore"):
        return _Rows(matrix.astype(np.float32, copy=False), others)


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
    if not isinstance(value, dict):
        return False
    has_vectors = any(value.get(key) for key in ("data", "embeddings"))
    return not has_vectors and (bool(value.get("error")) or not value.keys() & {"data", "embeddings"})
