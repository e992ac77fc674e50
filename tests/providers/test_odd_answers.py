"""Odd forms of compatible servers, through the whole pipeline: each vector that the API accepts is the right one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sandbox.client import Sandbox
from sandbox.vectors import embed, text_key
from tests.providers.conftest import SETTINGS, running
from tests.providers.job import MODEL, Job

TASKS = 96
ODD_FORMS = [
    "float64", "urlsafe", "unpadded", "line_breaks", "strings", "too_deep",
    "index_zero", "index_one_based", "index_missing", "index_text", "index_null", "index_float",
    "usage_negative", "usage_huge", "usage_null", "usage_missing", "usage_list", "usage_float", "usage_text",
    "bom", "comment",
]  # fmt: skip


def assert_right_vectors(sandbox: Sandbox, ids: list[str], texts: list[str]) -> None:
    results = sandbox.results()
    received = np.array([results[task_id] for task_id in ids], dtype=np.float32)
    expected = embed([text_key(MODEL, text) for text in texts], SETTINGS["EMBEDDING_DIMENSIONS"])
    np.testing.assert_allclose(received, expected, atol=1e-6)


@pytest.mark.parametrize("form", ODD_FORMS)
def test_every_task_gets_its_own_vector_from_a_server_with_an_odd_form(job: Job, form: str) -> None:
    job.sandbox.fault("openai", transform=form)
    texts = [f"{form} {number}" for number in range(TASKS)]
    job.queue_texts(*texts).wait_done()
    assert job.states == {"succeeded": TASKS}
    assert_right_vectors(job.sandbox, job.ids, texts)
    assert (job.paid, job.paid_again) == (TASKS, 0)
    assert set(job.statuses) == {"200"}
    status, page = job.pipeline.get("/ready")
    assert status == 200, page


def test_a_text_whose_vector_alone_is_shorter_waits_alone(tmp_path: Path) -> None:
    with running(tmp_path) as pipeline:
        pipeline.sandbox.fault("openai", transform="one_short", body_contains="always short")
        [lone] = pipeline.sandbox.queue_tasks([{"text": "always short", "model": MODEL}])
        texts = [f"beside a short one {number}" for number in range(TASKS)]
        job = Job(pipeline).queue_texts(*texts).wait_done()
        assert_right_vectors(pipeline.sandbox, job.ids, texts)
        pipeline.wait_until(lambda: len(pipeline.events("vectors_rejected")) >= 2, "the short one to be rejected twice")
        assert pipeline.sandbox.task(lone)["state"] == "pending"
        status, page = pipeline.get("/ready")
        assert status == 200, page


NO_VECTORS = [
    '{"data":[],"error":{"message":"overloaded"}}', '{"data":null,"error":"overloaded"}', "{}", "null", "[]", "",
]  # fmt: skip


@pytest.mark.parametrize(
    "body",
    ['{"data":[],"error":{"message":"overloaded"}}', '{"data":null,"error":"overloaded"}', "{}", "null", "[]", ""],
)
def test_tasks_wait_while_a_server_answers_200_without_vectors(job: Job, body: str) -> None:
    job.sandbox.fault("openai", times=3, status=200, body=body)
    texts = [f"after {body} {number}" for number in range(TASKS)]
    job.queue_texts(*texts).wait_done(60)
    assert job.states == {"succeeded": TASKS}
    assert_right_vectors(job.sandbox, job.ids, texts)


@pytest.mark.parametrize("answer", [{"status": 500}, {"status": 200, "body": '{"data":[]}'}], ids=str)
def test_a_few_answers_without_vectors_fail_no_task(job: Job, answer: dict[str, Any]) -> None:
    job.sandbox.fault("openai", times=1, **answer)
    texts = [f"{answer} {number}" for number in range(TASKS)]
    job.queue_texts(*texts).wait_done()
    assert job.states == {"succeeded": TASKS}
    assert_right_vectors(job.sandbox, job.ids, texts)


@pytest.mark.parametrize("status", [400, 500])
def test_a_server_that_fails_whenever_base64_is_asked_for_serves_all_tasks(tmp_path: Path, status: int) -> None:
    with running(tmp_path) as pipeline:
        body = '{"error":{"message":"bad request"}}'
        pipeline.sandbox.fault("openai", status=status, body=body, body_contains='"encoding_format"')
        texts = [f"without base64 {number}" for number in range(5 * TASKS)]
        job = Job(pipeline).queue_texts(*texts).wait_done()
        assert job.states == {"succeeded": len(texts)}
        assert_right_vectors(pipeline.sandbox, job.ids, texts)
        assert job.statuses[str(status)] <= 2 * 3 * SETTINGS["EMBEDDER_PROCESSES"], "each embedder learns for itself"
