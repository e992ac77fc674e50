"""Spoilt provider answers, one way each; a fault asks for one by name.

Of the vectors:     nan (in the first), zero (the first), too_few, too_many, wrong_length, not_normalised (the first)
Of their order:     shuffled: reversed, each with its right `index` (OpenAI only: Ollama sends no index)
Of the whole body:  truncated_json, html, error_in_200, string_error (an error under the key "detail", status 500)
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sandbox.http import Answer

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
    return vectors[:, : vectors.shape[1] // 2].copy()  # orjson writes contiguous rows only


def _not_normalised(vectors: Matrix) -> Matrix:
    vectors[0] *= 3.0
    return vectors


def _truncated_json(answer: Answer) -> Answer:
    return Answer(answer.status, answer.body[: len(answer.body) // 2], answer.content_type)


def _html(_answer: Answer) -> Answer:
    return Answer(200, b"<html><body><h1>It works!</h1></body></html>", "text/html; charset=utf-8")


def _error_in_200(_answer: Answer) -> Answer:
    return Answer(
        200, b'{"error":{"message":"The server had an error","type":"server_error","param":null,"code":null}}'
    )


def _string_error(_answer: Answer) -> Answer:
    return Answer(500, b'{"detail":"Internal error"}')


_OF_VECTORS: dict[str, Callable[[Matrix], Matrix]] = {
    "nan": _nan,
    "zero": _zero,
    "too_few": _too_few,
    "too_many": _too_many,
    "wrong_length": _wrong_length,
    "not_normalised": _not_normalised,
}
_OF_ANSWERS: dict[str, Callable[[Answer], Answer]] = {
    "truncated_json": _truncated_json,
    "html": _html,
    "error_in_200": _error_in_200,
    "string_error": _string_error,
}
ANY_PROVIDER = frozenset(_OF_VECTORS) | frozenset(_OF_ANSWERS)
OPENAI_ONLY = frozenset({"shuffled"})


def spoil_vectors(name: str | None, vectors: Matrix) -> Matrix:
    """The matrix as the named transform leaves it."""
    change = _OF_VECTORS.get(name or "")
    return vectors if change is None else change(vectors)


def spoil_answer(name: str | None, answer: Answer) -> Answer:
    """The answer as the named transform leaves it."""
    change = _OF_ANSWERS.get(name or "")
    return answer if change is None else change(answer)
