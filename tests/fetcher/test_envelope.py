"""The shapes of an element: each is read as the task that it means, or described without its text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import msgspec
import pytest

from common.task_types import TaskType
from common.task_types.text_embedding import TextEmbedding
from stages.fetcher.page import PendingPage, Reader
from tests.decisions import events, log_fields
from tests.fetcher.fetching import Fetching
from tests.fetcher.test_page import element, failure, ids, read

OBJECT_ID = "65f0c0ffee65f0c0ffee65f0"


class PanicError(BaseException):
    """Like pyo3_runtime.PanicException, it is not an `Exception`."""


class Content(msgspec.Struct):
    text: str = ""


class Raising(TaskType[Content]):
    """Raises in one of its methods."""

    name = "raising"
    content = Content

    def __init__(self, method: str, error: BaseException) -> None:
        self._method, self._error = method, error

    def _raise(self, method: str) -> None:
        if method == self._method:
            raise self._error

    def decode(self, raw: bytes) -> Content:
        self._raise("decode")
        return super().decode(raw)

    def invalid(self, content: Content) -> str | None:
        self._raise("invalid")
        return None

    def key(self, content: Content) -> str:
        self._raise("key")
        return "k"

    def tokens(self, content: Content) -> int:
        self._raise("tokens")
        return 1

    def process(self, key: str, contents: Sequence[Content], providers: object) -> NoReturn:
        raise NotImplementedError


def read_with(kind: TaskType[Any], *page: Any) -> PendingPage:
    kinds: dict[str, TaskType[Any]] = {kind.name: kind, "text_embedding": TextEmbedding()}
    return Reader(kinds).read([json.dumps(page).encode()], 0.0, 100, ())


@pytest.mark.parametrize(
    ("fields", "task_id"),
    [
        ({"_id": 17}, "17"),
        ({"_id": {"$oid": OBJECT_ID}}, OBJECT_ID),
        ({"_id": None, "id": "b"}, "b"),
        ({"_id": None, "id": 5}, "5"),
        ({"_id": "a", "id": 5}, "a"),
        ({"_id": "a/b ü"}, "a/b ü"),
    ],
)
def test_an_id_of_each_shape_is_read(fields: dict[str, Any], task_id: str) -> None:
    page = read(element("a", **fields))
    assert ids(page) == [task_id]
    assert page.candidates[0].failure is None
    assert page.skipped == {}


@pytest.mark.parametrize(
    ("created_at", "seconds"),
    [
        ({"$date": "2025-06-15T12:00:00Z"}, 1_749_988_800.0),
        ({"$date": {"$numberLong": "1749988800000"}}, 1_749_988_800.0),
        (1_749_988_800, 1_749_988_800.0),
        ("1749988800", 1_749_988_800.0),
        ([2025], math.inf),
        ({"year": 2025}, math.inf),
        (True, math.inf),
    ],
)
def test_a_date_of_each_shape_is_read_and_an_unreadable_one_is_an_unknown_age(created_at: Any, seconds: float) -> None:
    page = read(element("a", createdAt=created_at), element("b"))
    assert {candidate.task.id: candidate.created for candidate in page.candidates}["a"] == seconds
    assert ids(page)[0 if seconds <= 1_749_988_800.0 else 1] == "a"


@pytest.mark.parametrize("state", [..., None])
def test_a_task_whose_state_is_missing_or_null_is_pending(state: Any) -> None:
    assert ids(read(element("a", state=state))) == ["a"]


@pytest.mark.parametrize("content", ["some text", {"text": "some text", "model": None}, {"text": "some text"}])
def test_a_task_that_names_no_model_gets_the_default_one(content: Any) -> None:
    (candidate,) = read_with(TextEmbedding(default_model="our-model"), element("a", content=content)).candidates
    default = TextEmbedding()
    assert candidate.failure is None
    assert candidate.task.tokens == len("some text")
    assert TextEmbedding().decode(candidate.task.content).text == "some text"
    assert default.key(default.decode(candidate.task.content)) == "text-embedding-3-small"


def test_without_a_default_model_a_task_that_names_none_fails_with_the_name_of_the_variable() -> None:
    kinds: dict[str, TaskType[Any]] = {"text_embedding": TextEmbedding(default_model="")}
    body = json.dumps([element("a", content="text"), element("b")]).encode()
    bad, good = Reader(kinds).read([body], 0.0, 100, ()).candidates
    assert bad.failure is not None
    assert "DEFAULT_EMBEDDING_MODEL" in bad.failure.message
    assert good.failure is None


@pytest.mark.parametrize(
    ("odd", "key", "words"),
    [
        ("s3cret", "", "a string, not an object"),
        (["s3cret"], "", "an array, not an object"),
        (None, "", "missing or null, not an object"),
        (element("a", type=5), "type", "`type` is a number, not a string"),
        (element("a", state={"s3cret": 1}), "state", "`state` is an object, not a string"),
        (element(["s3cret"]), "_id", "no id"),
        (element("s3cret" * 100), "_id", "longer than 500 bytes"),
    ],
)
def test_an_unreadable_element_is_described_by_position_and_key_without_its_text(
    odd: Any, key: str, words: str
) -> None:
    page = read(element("b"), odd, odd)
    (unreadable,) = page.unreadable
    assert (unreadable.position, unreadable.key) == (2, key)
    assert words in unreadable.problem
    assert "s3cret" not in str(unreadable)
    log = log_fields("page_element_skipped", Fetching().page_read(page))
    assert (log["position"], log["key"], log["count"]) == (2, key, 2)


def test_each_problem_of_unreadable_elements_is_named_with_the_position_of_the_first() -> None:
    page = read(element("a"), element("b", type=5), element("c", state=5), element("d", type=5), "text")
    assert [(one.position, one.key, one.alike) for one in page.unreadable] == [
        (2, "type", 2),
        (3, "state", 1),
        (5, "", 1),
    ]


def test_unreadable_elements_are_logged_once_and_told_while_pages_show_them() -> None:
    fetcher = Fetching()
    bad = element("b", type=5)
    assert events(fetcher.page_read(read(bad))) == ["page_element_skipped"]
    assert fetcher.state.report(fetcher.now).facts["notices"] == [
        "1 of the pending elements cannot be read; the first is element 1: `type` is a number, not a string"
    ]
    assert events(fetcher.page_read(read(bad))) == []
    assert events(fetcher.page_read(read(bad, bad))) == ["page_element_skipped"]
    assert events(fetcher.page_read(read())) == []
    assert "notices" not in fetcher.state.report(fetcher.now).facts
    assert events(fetcher.page_read(read(bad))) == ["page_element_skipped"]


@pytest.mark.parametrize("method", ["decode", "invalid", "key", "tokens"])
@pytest.mark.parametrize("error", [RuntimeError("s3cret"), PanicError("s3cret"), MemoryError(), RecursionError()])
def test_whatever_a_task_type_raises_fails_only_its_own_task(method: str, error: BaseException) -> None:
    page = read_with(Raising(method, error), element("a", type="raising"), element("b"))
    bad, good = page.candidates
    assert good.failure is None
    assert bad.failure is not None
    assert bad.failure.code == "invalid_content"
    assert type(error).__name__ in bad.failure.message
    assert "s3cret" not in bad.failure.message


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_request_to_stop_is_not_taken_for_a_failure_of_a_task(error: Callable[[], BaseException]) -> None:
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        read_with(Raising("tokens", error()), element("a", type="raising"))


@pytest.mark.parametrize("cost", [-1, 2**60, 1.5, None])
def test_a_cost_that_no_stage_could_read_fails_only_its_own_task(cost: Any) -> None:
    kind = Raising("", ValueError())
    kind.tokens = lambda _: cost  # type: ignore[method-assign, assignment]
    assert failure(read_with(kind, element("a", type="raising"))).code == "invalid_content"


def test_a_text_with_a_million_spaces_is_counted() -> None:
    content = {"text": " " * 1_200_000 + "x", "model": "text-embedding-3-small"}
    page = read_with(TextEmbedding(lambda _: True), element("a", content=content), element("b"))
    assert [candidate.failure for candidate in page.candidates] == [None, None]


def test_a_page_object_is_read_and_noticed_once() -> None:
    page = Reader({"text_embedding": TextEmbedding()}).read(
        [json.dumps({"total": 1, "results": [element("a")]}).encode()], 0.0, 100, ()
    )
    assert (ids(page), page.object_key) == (["a"], "results")
    fetcher = Fetching()
    assert events(fetcher.page_read(page)).count("page_object_read") == 1
    assert events(fetcher.page_read(page)).count("page_object_read") == 0
