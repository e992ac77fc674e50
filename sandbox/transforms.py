"""Ways to corrupt a provider's response; a fault names one of them.

Vectors:     nan (in the first), zero (the first), too_few, too_many, wrong_length, not_normalised (the first)
Order:       shuffled: reversed, each with its correct `index` (OpenAI only: Ollama sends no index)
Whole body:  truncated_json, html, error_in_200, string_error (an error under the key "detail", status 500)
"""

from collections.abc import Callable

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
OPENAI_ONLY = frozenset({"shuffled"})


def transform_vectors(name: str | None, vectors: Matrix) -> Matrix:
    """Apply the named transform to the vectors, if it is one for vectors."""
    change = _VECTOR_TRANSFORMS.get(name or "")
    return vectors if change is None else change(vectors)


def transform_response(name: str | None, response: Response) -> Response:
    """Apply the named transform to the response, if it is one for responses."""
    change = _RESPONSE_TRANSFORMS.get(name or "")
    return response if change is None else change(response)
