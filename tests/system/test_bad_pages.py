"""An API that does not respond with a valid page: the reason is logged and counted, and the pipeline continues."""

from __future__ import annotations

import re

import psutil
import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline

PENDING = "^/api/ai-tasks/pending"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<html><body>Bad gateway</body></html>", "not a JSON array"),
        ('{"statusCode": 500, "message": "data"}', "not a JSON array"),
        ('[{"_id": "1", "type": "text_emb', "broken JSON"),
    ],
    ids=["HTML", "object", "cut short"],
)
def test_a_malformed_page_is_logged_with_its_reason_and_retried(
    outside: Sandbox, pipeline: Pipeline, body: str, words: str
) -> None:
    before = len(pipeline.events("poll_failed"))
    outside.fault("api", path=PENDING, times=1, status=200, body=body)
    pipeline.wait_until(lambda: len(pipeline.events("poll_failed")) > before, "the log line")
    assert words in pipeline.events("poll_failed")[-1]["reason"]
    (task_id,) = outside.queue_tasks([{"text": "after the bad page"}])
    pipeline.wait_until(lambda: outside.task(task_id)["state"] == "succeeded", "the task after it")


def test_malformed_elements_hide_no_other_task(outside: Sandbox, pipeline: Pipeline) -> None:
    outside.queue_raw([{"_id": 17, "type": "text_embedding"}, "no task", None, {"type": "text_embedding"}, [1, 2]])
    ids = outside.queue(20)
    pipeline.wait_until(lambda: all(outside.task(i)["state"] == "succeeded" for i in ids), "the good tasks")
    pipeline.wait_until(lambda: pipeline.events("page_element_skipped"), "the log line")
    metric = r'ai_tasks_skipped_total\{reason="malformed"\} [1-9]'
    pipeline.wait_until(lambda: re.search(metric, pipeline.get("/metrics")[1]), "the metric, with the next heartbeat")


@pytest.mark.timeout(300)
def test_twenty_thousand_tasks_in_one_page_need_bounded_memory(outside: Sandbox, pipeline: Pipeline) -> None:
    outside.settings(api={"honour_limit": False, "order": "shuffled", "keep_results": False, "check_bodies": False})
    fetcher = psutil.Process(pipeline.programs()["fetcher"]["pid"])
    before, largest = fetcher.memory_info().rss, 0
    accepted: int = outside.summary()["api"]["accepted"]
    outside.call("POST", "/tasks?ids=false", {"count": 20_000})

    def done() -> bool:
        nonlocal largest
        largest = max(largest, fetcher.memory_info().rss)
        finished: int = outside.summary()["api"]["accepted"]
        return finished >= accepted + 20_000

    pipeline.wait_until(done, "20,000 tasks", 240)
    assert outside.summary()["api"]["accepted_twice"] == 0
    assert largest - before < 120 * 2**20
