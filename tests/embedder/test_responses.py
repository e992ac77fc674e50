"""Response bodies of OpenAI, Ollama and compatible servers."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from common.failures.errors import Transient
from stages.embedder.providers import mock, responses

ROWS = mock.vectors("m", ["a", "b", "c"], 12)


def encoded(rows: Any) -> list[str]:
    return [base64.b64encode(np.asarray(row, "<f4").tobytes()).decode() for row in rows]


def body(embeddings: list[Any], **fields: Any) -> bytes:
    data = [{"object": "embedding", "index": at, "embedding": one} for at, one in enumerate(embeddings)]
    return json.dumps({"object": "list", "data": data, **fields}).encode()


def test_base64_and_lists_of_numbers_give_the_same_vectors() -> None:
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    packed = responses.decode_openai(body(encoded(ROWS), usage=usage), 3)
    plain = responses.decode_openai(body(ROWS.tolist(), usage=usage), 3)
    assert packed.tokens == plain.tokens == 7
    assert packed.positions is None
    assert np.array_equal(packed.matrix, ROWS)
    assert np.array_equal(plain.matrix, ROWS)
    assert packed.matrix.dtype == np.float32
    assert packed.matrix.flags.writeable


@pytest.mark.parametrize("usage", [{}, {"usage": None}, {"usage": {}}, {"usage": {"prompt_tokens": None}}])
def test_missing_usage_counts_as_no_tokens(usage: dict[str, Any]) -> None:
    assert responses.decode_openai(body(encoded(ROWS), **usage), 3).tokens == 0


def test_null_and_nan_in_a_vector_become_nan() -> None:
    rows = ROWS.tolist()
    rows[1][3] = None
    matrix = responses.decode_openai(body(rows), 3).matrix
    assert np.isnan(matrix[1, 3])
    assert np.array_equal(matrix[[0, 2]], ROWS[[0, 2]])
    rows[1][3] = float("nan")
    rows[2][0] = float("inf")
    matrix = responses.decode_openai(body(rows), 3).matrix
    assert np.isnan(matrix[1, 3])
    assert np.isinf(matrix[2, 0])


@pytest.mark.parametrize("rows", [encoded([*ROWS[:2], ROWS[2, :5]]), [*ROWS[:2].tolist(), ROWS[2, :5].tolist()]])
def test_only_a_row_of_another_length_becomes_nan(rows: list[Any]) -> None:
    matrix = responses.decode_openai(body(rows), 3).matrix
    assert np.array_equal(matrix[:2], ROWS[:2])
    assert np.isnan(matrix[2]).all()


def test_rows_keep_the_positions_that_the_provider_numbers() -> None:
    data = [{"index": at, "embedding": row} for at, row in zip([2, 0], encoded(ROWS[[2, 0]]), strict=True)]
    found = responses.decode_openai(json.dumps({"data": data}).encode(), 3)
    assert found.positions == [2, 0]
    for item in data:
        del item["index"]
    assert responses.decode_openai(json.dumps({"data": data}).encode(), 3).positions is None


def odd(change: Any, **fields: Any) -> bytes:
    """A response in which `change` is applied to each item."""
    content = json.loads(body(encoded(ROWS), **fields))
    for item in content["data"]:
        change(item)
    return json.dumps(content).encode()


def embedding_as(form: Any) -> Any:
    """Change the embedding of an item, which `form` gets as a vector."""
    return lambda item: item.update(embedding=form(np.frombuffer(base64.b64decode(item["embedding"]), "<f4")))


@pytest.mark.parametrize("length", [0, 12])
@pytest.mark.parametrize(
    "form",
    [
        lambda vector: base64.b64encode(vector.astype("<f8").tobytes()).decode(),
        lambda vector: base64.urlsafe_b64encode(vector.tobytes()).decode(),
        lambda vector: base64.b64encode(vector.astype("<f8").tobytes()).decode().rstrip("="),
        lambda vector: base64.encodebytes(vector.tobytes()).decode(),
        lambda vector: [str(number) for number in vector.tolist()],
        lambda vector: [vector.tolist()],
    ],
    ids=["float64", "URL-safe", "float64 unpadded", "line breaks", "strings", "nested"],
)
def test_every_form_of_a_vector_is_the_same_vector(form: Any, length: int) -> None:
    assert np.array_equal(responses.decode_openai(odd(embedding_as(form)), 3, length).matrix, ROWS)


def test_whole_numbers_are_read_as_numbers() -> None:
    assert responses.decode_openai(body([[1, 0, 0], [0, 1, 0]]), 2).matrix.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_more_float32_numbers_than_were_asked_for_are_not_read_as_float64() -> None:
    rows = mock.vectors("m", ["a", "b", "c"], 64)
    assert np.array_equal(responses.decode_openai(body(encoded(rows)), 3, 32).matrix, rows)


def test_one_row_with_nan_does_not_make_the_others_float64() -> None:
    rows = mock.vectors("m", ["a", "b", "c"], 64)
    rows[0, :] = np.nan
    matrix = responses.decode_openai(body(encoded(rows)), 3).matrix
    assert np.isnan(matrix[0]).all()
    assert np.array_equal(matrix[1:], rows[1:])


def test_float64_with_a_row_of_zeros_is_still_float64() -> None:
    rows = mock.vectors("m", ["a", "b", "c"], 64)
    rows[0] = 0
    data = [base64.b64encode(row.astype("<f8").tobytes()).decode() for row in rows]
    assert np.array_equal(responses.decode_openai(body(data), 3).matrix, rows)


def test_a_row_that_cannot_be_read_becomes_nan_alone() -> None:
    matrix = responses.decode_openai(body([*encoded(ROWS[:2]), {"no": "vector"}]), 3).matrix
    assert np.array_equal(matrix[:2], ROWS[:2])
    assert np.isnan(matrix[2]).all()


@pytest.mark.parametrize("nothing", [None, [], ""])
def test_embeddings_without_numbers_give_an_empty_matrix(nothing: Any) -> None:
    assert responses.decode_openai(body([nothing] * 3), 3).matrix.shape == (3, 0)
    assert responses.decode_openai(b'{"data": null}', 3).matrix.shape == (0, 0)


@pytest.mark.parametrize(
    ("indexes", "expected"),
    [
        ([0, 0, 0], None),
        ([1, 2, 3], None),
        ([None, None, None], None),
        (["0", "1", "2"], None),
        ([0.0, 1.0, 2.0], None),
        ([3, 1, 2], [2, 0, 1]),
        (["2", "0", "1"], [2, 0, 1]),
        ([2.0, 0.0, 1.0], [2, 0, 1]),
    ],
)
def test_rows_are_ordered_by_any_consistent_index(indexes: list[Any], expected: list[int] | None) -> None:
    numbers = iter(indexes)
    assert responses.decode_openai(odd(lambda item: item.update(index=next(numbers))), 3).positions == expected


@pytest.mark.parametrize("indexes", [[0, 0, 1], [0, 1, 7], [0, None, 2], ["a", "b", "c"], [{}, [], 0], [10**25, 1, 2]])
def test_indexes_that_contradict_each_other_are_transient(indexes: list[Any]) -> None:
    numbers = iter(indexes)
    with pytest.raises(Transient):
        responses.decode_openai(odd(lambda item: item.update(index=next(numbers))), 3)


def test_too_few_rows_that_may_be_counted_from_1_are_not_assigned() -> None:
    data = [{"index": at, "embedding": row} for at, row in zip([1, 2], encoded(ROWS[:2]), strict=True)]
    assert responses.decode_openai(json.dumps({"data": data}).encode(), 3).positions is None


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ([], 0),
        ("7", 7),
        (7.0, 7),
        ({"prompt_tokens": "7"}, 7),
        ({"prompt_tokens": 6.5}, 7),
        ({"prompt_tokens": -1}, 0),
        ({"prompt_tokens": -1, "total_tokens": 7}, 7),
        ({"prompt_tokens": 10**25}, 0),
        ({"prompt_tokens": 2**63}, 0),
        ({"prompt_tokens": 1001}, 0),
        ({"prompt_tokens": True}, 0),
        ({"prompt_tokens": {}}, 0),
    ],
)
def test_only_a_number_of_tokens_that_can_be_true_counts(usage: Any, tokens: int) -> None:
    found = responses.decode_openai(body(encoded(ROWS), usage=usage), 3, most_tokens=1000)
    assert (found.tokens, found.matrix.shape) == (tokens, (3, 12))
    count = usage.get("prompt_tokens") if isinstance(usage, dict) and len(usage) == 1 else usage
    answer = json.dumps({"embeddings": ROWS.tolist(), "prompt_eval_count": count}).encode()
    assert responses.decode_ollama(answer, most_tokens=1000).tokens == tokens


@pytest.mark.parametrize("prefix", [b"\xef\xbb\xbf", b" \r\n", b": PROCESSING\n\n: PROCESSING\n\n", b"// a\n# b\n"])
def test_what_stands_before_the_json_is_skipped(prefix: bytes) -> None:
    assert np.array_equal(responses.decode_openai(prefix + body(encoded(ROWS)), 3).matrix, ROWS)
    answer = prefix + json.dumps({"embeddings": ROWS.tolist()}).encode()
    assert np.array_equal(responses.decode_ollama(answer).matrix, ROWS)


def test_ollama_s_vectors_may_be_strings_and_too_large_numbers_become_infinite() -> None:
    rows: list[list[Any]] = [[str(number) for number in row] for row in ROWS.tolist()]
    assert np.array_equal(responses.decode_ollama(json.dumps({"embeddings": rows}).encode()).matrix, ROWS)
    assert np.isinf(responses.decode_ollama(b'{"embeddings": [[1e400, 0.5]]}').matrix[0, 0])


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"<html>",
        b'{"data": [{"embedding": [1',
        b"[]",
        b'{"data": "x"}',
        b'{"data": [{"embedding": "%%"}]}',
        b"NaN",
    ],
)
def test_a_body_that_cannot_be_decoded_is_transient(broken: bytes) -> None:
    with pytest.raises(Transient):
        responses.decode_openai(broken, 1)
    with pytest.raises(Transient):
        responses.decode_ollama(broken)


def test_an_ollama_response_gives_vectors_and_tokens() -> None:
    answer = json.dumps({"model": "m", "embeddings": ROWS.tolist(), "prompt_eval_count": 9}).encode()
    found = responses.decode_ollama(answer)
    assert np.array_equal(found.matrix, ROWS)
    assert found.tokens == 9
    assert responses.decode_ollama(b'{"embeddings": []}').matrix.shape == (0, 0)


UNIT = mock.vectors("m", ["a", "b", "c"], 64)


def halves(scale: float = 1.0) -> list[str]:
    return [base64.b64encode((row * scale).astype("<f2").tobytes()).decode() for row in UNIT]


def test_base64_of_float16_is_read_if_the_length_is_known_and_refused_otherwise() -> None:
    known = responses.decode_openai(body(halves()), 3, length=64).matrix
    np.testing.assert_allclose(known, UNIT, atol=1e-3)
    with pytest.raises(Transient, match="128 bytes of base64 are not a vector of float32"):
        responses.decode_openai(body(halves()), 3)


def test_base64_of_float64_and_float32_that_are_not_normalised_are_told_apart() -> None:
    for kind in ("<f4", "<f8"):
        data = [base64.b64encode((row * 20).astype(kind).tobytes()).decode() for row in UNIT]
        np.testing.assert_allclose(responses.decode_openai(body(data), 3).matrix, UNIT * 20, rtol=1e-6)


def test_base64_with_nan_or_of_zeros_is_float32_and_refused_as_such_later() -> None:
    rows = UNIT.copy()
    rows[:, 3] = np.nan
    assert np.isnan(responses.decode_openai(body(encoded(rows)), 3).matrix[:, 3]).all()
    assert not responses.decode_openai(body(encoded(rows * 0 + 0)), 3).matrix[:, :3].any()


def test_vectors_one_level_too_deep_are_read() -> None:
    items = json.loads(body(ROWS.tolist()))["data"]
    for data in ([items], [{**item, "embedding": [item["embedding"]]} for item in items]):
        found = responses.decode_openai(json.dumps({"data": data}).encode(), 3).matrix
        np.testing.assert_array_equal(found, ROWS)
    found = responses.decode_ollama(json.dumps({"embeddings": [ROWS.tolist()]}).encode()).matrix
    np.testing.assert_array_equal(found, ROWS)


def test_an_item_without_an_embedding_is_asked_for_again_alone() -> None:
    items = json.loads(body(ROWS.tolist()))["data"]
    items[1] = {"object": "error", "index": 1}
    found = responses.decode_openai(json.dumps({"data": items}).encode(), 3).matrix
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[[0, 2]], ROWS[[0, 2]])


def test_rows_of_another_length_than_most_are_told() -> None:
    mixed = [*ROWS[:2].tolist(), ROWS[2, :5].tolist()]
    assert responses.decode_openai(body(mixed), 3).other_lengths == {2: 5}
    assert responses.decode_ollama(json.dumps({"embeddings": mixed}).encode()).other_lengths == {2: 5}
    assert responses.decode_openai(body(encoded(ROWS)), 3).other_lengths == {}
