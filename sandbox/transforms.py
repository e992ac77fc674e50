"""Ways to corrupt a provider's response; a fault names one of them.

Vectors:     nan (in the first), zero (the first), too_few, too_many, wrong_length, not_normalised (the first)
Order:       shuffled: reversed, each with its correct `index` (OpenAI only: Ollama sends no index)
Whole body:  truncated_json, html, error_in_200, string_error (an error under the key "detail", status 500)
Odd forms:   the right vectors as some compatible servers send them (OpenAI only, without `encoding_format: float`)
             float64, urlsafe, unpadded, line_breaks: base64 of another kind
             strings: numbers as strings; too_deep: each vector in a list of its own; one_short: the first is shorter
             index_zero, index_one_based, index_missing, index_null, index_text, index_float: other numbering
             usage_negative, usage_huge, usage_null, usage_missing, usage_list, usage_float, usage_text: odd `usage`
             bom, comment: before the JSON
"""

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from sandbox.http import Response

Matrix = npt.NDArray[np.float32]  # (n, d)


def _nan(vectors: Matrix) -> Matrix:
    vectors[0, 0] = np.nan
    return vectors


def _zero(vectors: Matrix) -> Matrix:
    vectors[0] = 0.0
    return vectors


def _too_few(vectors: Matrix) -> Matrix:
    return vectors[:-1]


def _too_many(vectors: Matrix) -> Matrix:
    return np.vstack([vectors, vectors[-1:]])


def _wrong_length(vectors: Matrix) -> Matrix:
    return vectors[:, : vectors.shape[1] // 2].copy()  # orjson only accepts contiguous rows


def _not_normalised(vectors: Matrix) -> Matrix:
    vectors[0] *= 3.0
    return vectors


def _truncated_json(response: Response) -> Response:
    return Response(response.status, response.body[: len(response.body) // 2], response.content_type)


def _html(_response: Response) -> Response:
    return Response(200, b"<html><body><h1>It works!</h1></body></html>", "text/html; charset=utf-8")


def _error_in_200(_response: Response) -> Response:
    return Response(
        200, b'{"error":{"message":"The server had an error","type":"server_error","param":null,"code":null}}'
    )


def _string_error(_response: Response) -> Response:
    return Response(500, b'{"detail":"Internal error"}')


def _packed(vector: Matrix, kind: str = "<f4") -> str:
    return base64.b64encode(vector.astype(kind).tobytes()).decode()


def _line_breaks(vector: Matrix) -> str:
    return base64.encodebytes(vector.astype("<f4").tobytes()).decode()


def _with_usage(tokens: object) -> Callable[[dict[str, Any]], object]:
    usage = {"prompt_tokens": tokens, "total_tokens": tokens} if isinstance(tokens, int | float | str) else tokens
    return lambda body: body.update(usage=usage)


def _one_short(body: dict[str, Any]) -> None:
    first = body["data"][0]
    if isinstance(first["embedding"], str):
        vector = np.frombuffer(base64.b64decode(first["embedding"]), "<f4")
        first["embedding"] = _packed(vector[: len(vector) // 2])


def _changed_items(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return lambda body: [change(item) for item in body["data"]]


def _other_form(form: Callable[[Matrix], object]) -> Callable[[dict[str, Any]], object]:
    """Write each vector in another form."""

    def change(item: dict[str, Any]) -> None:
        if isinstance(item["embedding"], str):
            item["embedding"] = form(np.frombuffer(base64.b64decode(item["embedding"]), "<f4"))

    return _changed_items(change)


_BODY_TRANSFORMS: dict[str, Callable[[dict[str, Any]], object]] = {
    "float64": _other_form(lambda vector: _packed(vector, "<f8")),
    "urlsafe": _other_form(lambda vector: base64.urlsafe_b64encode(vector.tobytes()).decode()),
    "unpadded": _other_form(lambda vector: _packed(vector).rstrip("=")),
    "line_breaks": _other_form(_line_breaks),
    "strings": _other_form(lambda vector: [str(number) for number in vector.tolist()]),
    "too_deep": _other_form(lambda vector: [vector.tolist()]),
    "one_short": _one_short,
    "index_zero": _changed_items(lambda item: item.update(index=0)),
    "index_one_based": _changed_items(lambda item: item.update(index=item["index"] + 1)),
    "index_missing": _changed_items(lambda item: item.pop("index")),
    "index_text": _changed_items(lambda item: item.update(index=str(item["index"]))),
    "usage_negative": _with_usage(-1),
    "usage_huge": _with_usage(10**25),
    "index_null": _changed_items(lambda item: item.update(index=None)),
    "index_float": _changed_items(lambda item: item.update(index=float(item["index"]))),
    "usage_null": _with_usage(None),
    "usage_missing": lambda body: body.pop("usage"),
    "usage_list": _with_usage([]),
    "usage_float": _with_usage(7.5),
    "usage_text": _with_usage("many"),
}
_PREFIXES = {"bom": b"\xef\xbb\xbf", "comment": b": PROCESSING\n\n"}

_VECTOR_TRANSFORMS: dict[str, Callable[[Matrix], Matrix]] = {
    "nan": _nan,
    "zero": _zero,
    "too_few": _too_few,
    "too_many": _too_many,
    "wrong_length": _wrong_length,
    "not_normalised": _not_normalised,
}
_RESPONSE_TRANSFORMS: dict[str, Callable[[Response], Response]] = {
    "truncated_json": _truncated_json,
    "html": _html,
    "error_in_200": _error_in_200,
    "string_error": _string_error,
}
ANY_PROVIDER = frozenset(_VECTOR_TRANSFORMS) | frozenset(_RESPONSE_TRANSFORMS)
OPENAI_ONLY = frozenset({"shuffled", *_BODY_TRANSFORMS, *_PREFIXES})


def transform_vectors(name: str | None, vectors: Matrix) -> Matrix:
    """Apply the named transform to the vectors, if it is one for vectors."""
    change = _VECTOR_TRANSFORMS.get(name or "")
    return vectors if change is None else change(vectors)


def transform_response(name: str | None, response: Response) -> Response:
    """Apply the named transform to the response, if it is one for responses."""
    name = name or ""
    if name in _BODY_TRANSFORMS:
        body = json.loads(response.body)
        _BODY_TRANSFORMS[name](body)
        return Response(response.status, json.dumps(body).encode(), response.content_type, response.headers)
    if name in _PREFIXES:
        return Response(response.status, _PREFIXES[name] + response.body, response.content_type, response.headers)
    change = _RESPONSE_TRANSFORMS.get(name)
    return response if change is None else change(response)
