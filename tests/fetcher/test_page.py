"""Reading a page: which of its elements are tasks for this pipeline, and which are invalid."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from common.failures.errors import Transient
from common.task_types import registered
from common.wire.messages import Failure
from stages.fetcher.page import PendingPage, Reader

NOW = 1_750_000_000.0
ANY = 10_000


def element(task_id: Any = "a", **fields: Any) -> dict[str, Any]:
    """An element as the API sends it; a field that is `...` is left out."""
    whole = {
        "_id": task_id,
        "type": "text_embedding",
        "state": "pending",
        "content": {"text": f"text of {task_id}", "model": "m"},
        "createdAt": "2025-06-15T12:00:00.000Z",
        **fields,
    }
    return {name: value for name, value in whole.items() if value is not ...}


def read(
    *page: Any, wanted: int = ANY, known: frozenset[str] = frozenset(), deferred: tuple[str, ...] = ()
) -> PendingPage:
    return read_bytes(json.dumps(page).encode(), wanted, known, deferred)


def read_bytes(
    body: bytes, wanted: int = ANY, known: frozenset[str] = frozenset(), deferred: tuple[str, ...] = ()
) -> PendingPage:
    return Reader(registered()).read([body[:50], body[50:]], NOW, wanted, known, deferred)


def ids(page: PendingPage) -> list[str]:
    return [candidate.task.id for candidate in page.candidates]


def failure(page: PendingPage) -> Failure:
    (candidate,) = page.candidates
    assert candidate.failure is not None
    return candidate.failure


def test_a_pending_task_becomes_a_candidate_with_everything_that_later_stages_need() -> None:
    page = read(element("a"))
    (candidate,) = page.candidates
    assert candidate.failure is None
    assert candidate.created == 1749988800.0
    task = candidate.task
    assert (task.id, task.type, task.key, task.tokens) == ("a", "text_embedding", "m", len("text of a"))
    assert json.loads(task.content) == {"text": "text of a", "model": "m"}
    assert task.created_at == "2025-06-15T12:00:00.000Z"
    assert (page.requested_at, page.elements, page.whole, page.skipped, page.unknown_types) == (NOW, 1, True, {}, [])


def test_candidates_are_sorted_oldest_first() -> None:
    page = read(
        element("new", createdAt="2025-03-01T00:00:00Z"),
        element("undated", createdAt=...),
        element("old", createdAt="2025-01-01T00:00:00Z"),
        element("middle", createdAt="2025-02-01T00:00:00+05:00"),
    )
    assert ids(page) == ["old", "middle", "new", "undated"]


@pytest.mark.parametrize(
    ("created_at", "seconds"),
    [
        (..., math.inf),
        (None, math.inf),
        ("", math.inf),
        ("yesterday", math.inf),
        (1_749_988_800_000, 1_749_988_800.0),
        (1_749_988_800_000.0, 1_749_988_800.0),
        ("2025-06-15T12:00:00", 1_749_988_800.0),
        ("2025-06-15T12:00:00+02:00", 1_749_981_600.0),
        ("0001-01-01T00:00:00", -62_135_596_800.0),
        ("0001-01-01T00:00:00+14:00", -62_135_596_800.0 - 14 * 3600),
        ("9999-12-31T23:59:59-12:00", 253_402_300_799.0 + 12 * 3600),
    ],
)
def test_a_missing_or_invalid_date_does_not_make_a_task_invalid(created_at: Any, seconds: float) -> None:
    (candidate,) = read(element("a", createdAt=created_at)).candidates
    assert candidate.created == seconds
    assert candidate.task.created_at == (created_at if isinstance(created_at, str) else "")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"_id": ...}, "no_id"),
        ({"_id": ""}, "no_id"),
        ({"_id": None}, "no_id"),
        ({"_id": "x" * 501}, "no_id"),
        ({"_id": "ü" * 251}, "no_id"),
        ({"_id": True}, "no_id"),
        ({"_id": {"$oid": []}}, "no_id"),
        ({"state": "succeeded"}, "not_pending"),
        ({"state": "processing"}, "not_pending"),
        ({"state": 1}, "malformed"),
        ({"type": "image_caption"}, "unknown_type"),
        ({"type": ...}, "malformed"),
        ({"type": 5}, "malformed"),
        ({"type": None}, "malformed"),
    ],
)
def test_an_element_that_is_not_for_this_pipeline_is_skipped_and_counted(fields: dict[str, Any], reason: str) -> None:
    page = read(element("a", **fields), element("b"))
    assert ids(page) == ["b"]
    assert page.skipped == {reason: 1}
    assert page.elements == 2


@pytest.mark.parametrize("odd", [None, 5, "text", [], [element("c")], True])
def test_an_element_that_is_not_an_object_is_malformed(odd: Any) -> None:
    page = read(element("a"), odd, element("b"))
    assert ids(page) == ["a", "b"]
    assert page.skipped == {"malformed": 1}


def test_an_id_may_be_500_bytes_long_to_fit_into_a_key_on_disk() -> None:
    assert ids(read(element("x" * 500))) == ["x" * 500]


def test_an_id_is_read_from_the_field_id_if_there_is_no_underscore_id() -> None:
    assert ids(read(element("", id="b"))) == ["b"]
    assert ids(read(element(..., id="b"))) == ["b"]
    assert ids(read(element("a", id="b"))) == ["a"]


def test_a_task_without_a_state_is_pending() -> None:
    assert ids(read(element("a", state=...))) == ["a"]


def test_unknown_types_are_listed_once_each_and_cut_to_64_characters() -> None:
    page = read(*(element(str(number), type="b" if number % 2 else "a" * 1000) for number in range(6)))
    assert page.skipped == {"unknown_type": 6}
    assert page.unknown_types == ["a" * 64, "b"]


def test_known_ids_are_skipped_without_a_look_at_their_content() -> None:
    page = read(element("a"), element("b", content="malformed"), element("c"), known=frozenset({"a", "b"}))
    assert ids(page) == ["c"]
    assert page.skipped == {"known": 2}


def test_a_task_that_a_page_shows_twice_is_one_task() -> None:
    page = read(element("a"), element("a"), element("b"))
    assert ids(page) == ["a", "b"]
    assert page.elements == 3


def test_tasks_with_a_deferred_batch_key_are_skipped() -> None:
    later = element("a", content={"text": "x", "model": "later"})
    page = read(later, element("b"), deferred=("later",))
    assert ids(page) == ["b"]
    assert page.skipped == {"deferred": 1}


def test_reading_stops_when_enough_candidates_are_found() -> None:
    page = read(*(element(str(number)) for number in range(10)), wanted=3)
    assert ids(page) == ["0", "1", "2"]
    assert page.elements == 3
    assert not page.whole


def test_skipped_elements_do_not_count_as_found() -> None:
    page = read(element("a"), element("b", type="other"), element("c"), element("d"), wanted=2, known=frozenset("a"))
    assert ids(page) == ["c", "d"]
    assert page.elements == 4


def test_the_rest_of_a_page_is_not_waited_for_when_enough_is_found() -> None:
    def arriving() -> Any:
        yield json.dumps([element("a"), element("b")]).encode()
        raise AssertionError("read on")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.fetcher.json_array.SLICE_BYTES", 1)
        page = Reader(registered()).read(arriving(), NOW, 1, ())
    assert ids(page) == ["a"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (..., "does not fit text_embedding"),
        (None, "does not fit text_embedding"),
        ("", "content.text is empty"),
        (5, "does not fit text_embedding"),
        ([], "does not fit text_embedding"),
        ({}, "`text`"),
        ({"text": 5}, "$.text"),
        ({"text": "x", "model": 5}, "$.model"),
        ({"text": ""}, "content.text is empty"),
        ({"text": " \n"}, "content.text is empty"),
        ({"text": "x", "model": " "}, "content.model is empty"),
    ],
)
def test_malformed_content_of_a_known_type_is_a_candidate_that_failed(content: Any, words: str) -> None:
    page = read(element("a", content=content), element("b"))
    assert ids(page) == ["a", "b"]
    bad, good = page.candidates
    assert good.failure is None
    assert bad.failure is not None
    assert bad.failure.code == "invalid_content"
    assert words in bad.failure.message
    assert (bad.task.key, bad.task.content, bad.task.tokens) == ("", b"", 0)
    assert bad.task.created_at == "2025-06-15T12:00:00.000Z"
    assert bad.created == good.created


def test_a_failure_does_not_contain_the_text_of_the_task() -> None:
    page = read(element("a", content={"text": {"secret": "s3cret"}}))
    assert "s3cret" not in failure(page).message


def test_half_an_emoji_is_replaced_and_does_not_hide_the_page() -> None:
    """`JSON.stringify` sends the half that `substring` left, and msgspec refuses the whole array for it."""
    page = read_bytes(b"[" + json.dumps(element("a", content={"text": "cut \ud83d"})).encode() + b"]")
    (candidate,) = page.candidates
    assert candidate.failure is None
    assert json.loads(candidate.task.content) == {"text": "cut \N{REPLACEMENT CHARACTER}"}
    assert candidate.task.tokens == len("cut ") + 3


def test_invalid_utf_8_fails_only_its_own_task() -> None:
    body = json.dumps([element("a", content={"text": "?"}), element("b")]).encode().replace(b'"?"', b'"\xff"')
    page = read_bytes(body)
    assert ids(page) == ["a", "b"]
    assert page.candidates[0].failure is not None
    assert page.candidates[1].failure is None


@pytest.mark.parametrize(
    "bad",
    [b'{"_id": "x", "type": "\xff"}', b'{"_id": "x", "n": NaN}', b"{" * 9 + b"}" * 9, b"[" * 5000 + b"]" * 5000, b""],
    ids=["bytes", "NaN", "braces", "deep", "nothing"],
)
def test_a_broken_element_does_not_hide_the_others(bad: bytes) -> None:
    good = json.dumps(element("a")).encode()
    page = read_bytes(b"[" + good + b"," + bad + b"," + good.replace(b'"a"', b'"b"') + b"]")
    assert ids(page) == ["a", "b"]
    assert list(page.skipped.values()) == [1]


@pytest.mark.parametrize("body", [b"<html></html>", b'{"statusCode": 500}', b'[{"_id": "a"'])
def test_a_body_that_is_not_a_page_is_a_transient_failure(body: bytes) -> None:
    with pytest.raises(Transient):
        read_bytes(body)
