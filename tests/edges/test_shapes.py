"""The shapes in which real APIs send tasks and pages: each task is processed and PATCHed under its own id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from tests.edges.api import Api, page
from tests.pipelines import pipeline_with_own_sandbox, restored

OBJECT_ID = "65f0c0ffee65f0c0ffee65f0"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    settings = {
        "PROCESSING_MODE": "openai",
        "POLLING_INTERVAL_SECONDS": 0.3,
        "RATE_LIMIT_TOKENS_PER_MINUTE": 1_000_000,
        "DEFAULT_EMBEDDING_MODEL": "text-embedding-3-large",
    }
    outside = {"api": {"body_limit": 0, "keep_results": True}}
    with pipeline_with_own_sandbox(tmp_path_factory.mktemp("p"), outside, **settings) as running:
        yield running


def raw(text: str, **fields: Any) -> dict[str, Any]:
    """An element; a field that is `...` is left out."""
    content = {"text": text, "model": "text-embedding-3-small"}
    whole = {"type": "text_embedding", "state": "pending", "content": content, **fields}
    return {name: value for name, value in whole.items() if value is not ...}


def test_a_task_of_each_shape_is_processed_and_patched_under_its_id(pipeline: Pipeline) -> None:
    sandbox = pipeline.sandbox
    shapes = {
        "17": raw("number", _id=17),
        OBJECT_ID: raw("oid", _id={"$oid": OBJECT_ID}, createdAt={"$date": "2025-06-15T12:00:00Z"}),
        "b": raw("id beside null", _id=None, id="b", createdAt=1_749_988_800),
        "42": raw("numeric id", id=42, createdAt={"$date": {"$numberLong": "1749988800000"}}),
        "a/../b?c=d#ü": raw("odd id", _id="a/../b?c=d#ü", createdAt=["unreadable"]),
        "stateless": raw("null state", _id="stateless", state=None),
        "missing": raw("no state", _id="missing", state=...),
        "plain": raw("", _id="plain", content="a plain text"),
        "null-model": raw("", _id="null-model", content={"text": "no model", "model": None}),
    }
    assert sandbox.queue_raw(shapes.values()) == list(shapes)
    pipeline.wait_until(lambda: set(shapes) <= set(sandbox.results()), "all shapes")
    results = sandbox.results()
    large = {"plain", "null-model"}
    assert {i: len(results[i]) for i in shapes} == {i: 3072 if i in large else 1536 for i in shapes}
    unknown = [task["id"] for task in sandbox.record() if task["state"] is None]
    assert unknown == [], "a PATCH went to an id that does not exist"


def test_a_million_spaces_before_a_letter_harm_only_their_own_task(pipeline: Pipeline) -> None:
    sandbox = pipeline.sandbox
    fetcher = pipeline.programs()["fetcher"]["pid"]
    (bad,) = sandbox.queue_tasks([{"text": " " * 1_200_000 + "x"}])
    ids = sandbox.queue(50)
    pipeline.wait_until(lambda: all(sandbox.task(i)["state"] == "succeeded" for i in ids), "the good tasks")
    pipeline.wait_until(lambda: sandbox.task(bad)["state"] == "failed", "the failure of the bad one")
    assert pipeline.programs()["fetcher"]["pid"] == fetcher


def test_unreadable_elements_are_named_by_position_and_key(pipeline: Pipeline) -> None:
    sandbox = pipeline.sandbox
    sandbox.queue_raw([raw("s3cret", _id="c", type=5)])
    (good,) = sandbox.queue(1)
    pipeline.wait_until(lambda: sandbox.task(good)["state"] == "succeeded", "the good task")
    pipeline.wait_until(lambda: pipeline.events("page_element_skipped"), "the log line")
    logged = pipeline.events("page_element_skipped")[0]
    assert (logged["position"], logged["key"]) == (1, "type")
    assert "s3cret" not in str(logged)


@pytest.mark.parametrize("key", ["data", "items", "results", "docs"])
def test_a_page_object_is_read_with_a_notice(pipeline: Pipeline, key: str) -> None:
    with restored(pipeline.sandbox) as sandbox:
        sandbox.settings(api={"page_key": key})
        ids = sandbox.queue(20)
        pipeline.wait_until(lambda: all(sandbox.task(i)["state"] == "succeeded" for i in ids), "the tasks")
    assert len(pipeline.events("page_object_read")) == 1


@pytest.mark.parametrize("status", [200, 204])
def test_a_response_without_a_body_is_an_empty_page(sandbox: Sandbox, edges: Api, status: int) -> None:
    sandbox.settings(api={"no_content": status})
    for _ in range(2):
        found = page(edges.get())
        assert (found.elements, found.whole, found.candidates) == (0, True, [])
