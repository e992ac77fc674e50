"""Cutting an array into its elements: the same as `json.loads`, for any chunks, in bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.failures.errors import Transient
from stages.fetcher import json_array as module
from stages.fetcher.json_array import elements

TRICKY = st.sampled_from(['"', "\\", "},", "]", "[", "{", ",", '\\"', '"},{"', "\\\\", "\u2028", "🎈", "\x00", "\\u"])
TEXTS = st.lists(TRICKY | st.text(max_size=3), max_size=6).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


def cut(data: bytes, *places: int) -> list[bytes]:
    """The same bytes in chunks."""
    ends = sorted(min(place, len(data)) for place in places)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


def values(chunks: list[bytes]) -> list[Any]:
    return [json.loads(element) for element in elements(chunks)]


@pytest.fixture
def tiny_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make even a page of a few bytes too long to be decoded at once."""
    monkeypatch.setattr(module, "SLICE_BYTES", 1)


@given(st.lists(VALUES, max_size=8), st.lists(st.integers(0, 400)), st.sampled_from([None, 1, 2]), st.booleans())
def test_any_array_in_any_chunks_gives_the_elements_that_json_gives(
    array: list[Any], places: list[int], indent: int | None, ascii_only: bool
) -> None:
    data = json.dumps(array, indent=indent, ensure_ascii=ascii_only).encode()
    for slice_size in (1, 20, module.SLICE_BYTES):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "SLICE_BYTES", slice_size)
            assert values(cut(data, *places)) == array


@pytest.mark.usefixtures("tiny_slices")
def test_an_array_whose_chunks_end_anywhere_gives_the_same_elements() -> None:
    array = [{"text": 'a "quoted", {braced}, [bracketed] \\ and },{ '}, {"b": [{}, [], {"c": "}]"}]}, "x", -1.5, None]
    data = json.dumps(array).encode()
    for first in range(len(data)):
        for second in range(first, len(data), 7):
            assert values(cut(data, first, second)) == array


@pytest.mark.usefixtures("tiny_slices")
def test_an_element_is_passed_on_before_the_next_ones_arrive() -> None:
    arrived: list[int] = []

    def arriving() -> Iterator[bytes]:
        for number in range(10):
            arrived.append(number)
            yield (b"[" if number == 0 else b",") + b'{"number":%d}' % number
        yield b"]"

    for read, element in enumerate(elements(arriving())):
        assert json.loads(element) == {"number": read}
        assert len(arrived) <= read + 2


@pytest.mark.parametrize("data", [b"[]", b"  [ ]\n", b"\n\n[\n]", b'{"data": []}', b"", b" \n\t "])
def test_an_empty_array_or_an_empty_body_has_no_elements(data: bytes) -> None:
    assert values([data]) == []


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"statusCode": 500, "message": ["data", "items"]}', "not a JSON array .it begins with '{'"),
        (b'{"data": "items", "nested": {"data": [1]}}', "not a JSON array .it begins with '{'"),
        (b'{"data": null, "items": {}}', "not a JSON array .it begins with '{'"),
        (b'{"data": [{"id": 1}, {"id":', "broken JSON"),
        (b'{"data": [{"id": 1}], "total', "broken JSON"),
        (b"{", "not a JSON array .it begins with '{'"),
        (b"<html><body>502 Bad Gateway</body></html>", "not a JSON array .it begins with '<'"),
        (b'{"message": "Internal server error"}', "not a JSON array .it begins with '{'"),
        (b"\xff\xfe[", "not a JSON array"),
        (b'[{"id": 1}, {"id":', "broken JSON"),
        (b'[{"id": 1}', "broken JSON"),
        (b'[{"id": 1},', "broken JSON"),
        (b'[{"id": "1', "broken JSON"),
        (b"[", "broken JSON"),
        (b'[{"id": 1}] and more', "broken JSON"),
        (b'[{"id": 1}][', "broken JSON"),
    ],
)
@pytest.mark.parametrize("slice_size", [1, 8, module.SLICE_BYTES])
def test_a_body_that_is_not_an_array_is_a_transient_failure_with_a_reason(
    body: bytes, sentence: str, slice_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLICE_BYTES", slice_size)
    with pytest.raises(Transient, match=sentence):
        list(elements(cut(body, 1, 3, 11)))


@pytest.mark.parametrize(
    "bad",
    [
        b'{"text": "half an emoji \\ud83d"}',
        b'{"text": "no UTF-8: \xff"}',
        b'{"deep": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"number": NaN}',
        b'{"missing" "colon"}',
        b"",
        b"1 2",
    ],
    ids=["surrogate", "bytes", "deep", "NaN", "colon", "nothing", "two"],
)
@pytest.mark.parametrize("slice_size", [1, module.SLICE_BYTES])
def test_an_element_that_the_decoder_refuses_does_not_hide_the_others(
    bad: bytes, slice_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLICE_BYTES", slice_size)
    data = b'[{"a": 1}, ' + bad + b' , {"b": "],[ "}]'
    assert list(elements(cut(data, 9, 20))) == [b'{"a": 1}', bad, b'{"b": "],[ "}']


def test_fifty_thousand_elements_are_read_in_bounded_memory() -> None:
    element = json.dumps({"_id": "0" * 24, "content": {"text": 'some {"json": [1]},{ in a text ' * 10}}).encode()

    def page() -> Iterator[bytes]:
        yield b"["
        for number in range(50_000):
            yield element if number == 0 else b"," + element
        yield b"]"

    tracemalloc.start()
    count = sum(1 for _ in elements(blocks(page(), 256 * 1024)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 50_000
    assert 50_000 * len(element) > 4 * module.SLICE_BYTES
    assert peak < 6 * module.SLICE_BYTES


def blocks(parts: Iterator[bytes], size: int) -> Iterator[bytes]:
    block = bytearray()
    for part in parts:
        block += part
        if len(block) >= size:
            yield bytes(block)
            block.clear()
    yield bytes(block)


def test_an_element_that_does_not_end_makes_the_page_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE_BYTES", 100)
    monkeypatch.setattr(module, "LARGEST_ELEMENT_BYTES", 1000)
    with pytest.raises(Transient, match="longer than"):
        list(elements([b'[{"text": "'] + [b"endless " * 10] * 100))


@given(
    st.lists(VALUES, max_size=8),
    st.lists(st.integers(0, 400)),
    st.sampled_from(["data", "items", "results", "docs"]),
    st.dictionaries(TEXTS, VALUES, max_size=3),
)
def test_the_array_of_a_page_object_gives_its_elements_in_any_chunks(
    array: list[Any], places: list[int], key: str, around: dict[str, Any]
) -> None:
    others = {f"x{name}": value for name, value in around.items()}
    data = json.dumps({**others, key: array, **{f"y{name}": value for name, value in others.items()}}).encode()
    for slice_size in (1, 20, module.SLICE_BYTES):
        keys: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "SLICE_BYTES", slice_size)
            assert [json.loads(element) for element in elements(cut(data, *places), keys.append)] == array
        assert keys == [key]


def test_an_object_without_an_array_is_not_read_to_its_end() -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"message": "'
        while True:
            yield b"endless " * 1000

    with pytest.raises(Transient, match="not a JSON array"):
        list(elements(endless()))
