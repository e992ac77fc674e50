"""Wrong responses, each once through the whole pipeline: every task gets its own vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sandbox.vectors import embed, text_key
from tests.providers.conftest import SETTINGS
from tests.providers.job import MODEL, Job

TASKS = 96
ONCE: dict[str, dict[str, Any]] = {
    "NaN": {"transform": "nan"},
    "zero": {"transform": "zero"},
    "too few": {"transform": "too_few"},
    "too many": {"transform": "too_many"},
    "of another length": {"transform": "wrong_length"},
    "not normalised": {"transform": "not_normalised"},
    "in another order": {"transform": "shuffled"},
    "truncated JSON": {"transform": "truncated_json"},
    "HTML": {"status": 200, "body": "<html><body>It works!</body></html>"},
    "an error with status 200": {"status": 200, "body": '{"error": {"message": "overloaded", "type": "server_error"}}'},
    "an error under another key": {"status": 500, "body": '{"detail": "Internal error"}'},
    "a cut connection": {"cut": 5000, "reset": True},
    "too slow": {"delay": 4.0},
    "a trickle": {"dribble": 2000},
}


@pytest.mark.parametrize("fault", ONCE.values(), ids=ONCE)
def test_every_task_gets_its_own_vector_after_one_wrong_response(job: Job, fault: dict[str, Any]) -> None:
    job.sandbox.fault("openai", times=1, **fault)
    texts = [f"{fault} {number}" for number in range(TASKS)]
    job.queue_texts(*texts).wait_done()
    assert job.states == {"succeeded": TASKS}
    results = job.sandbox.results()
    received = np.array([results[task_id] for task_id in job.ids], dtype=np.float32)
    expected = embed([text_key(MODEL, text) for text in texts], SETTINGS["EMBEDDING_DIMENSIONS"])
    np.testing.assert_allclose(received, expected, atol=1e-6)
    assert job.sandbox.faults()[0]["applied"] == 1


def test_a_text_without_a_usable_vector_fails_with_the_reason(job: Job) -> None:
    job.sandbox.fault("openai", body_contains="always NaN", transform="nan")
    job.queue_texts("always NaN").wait_done()
    assert job.errors[job.ids[0]] == {
        "code": "invalid_vector",
        "message": "openai gave no usable vector: the vector is not finite",
    }
    assert job.requests == 3, "one more try, and a canary that shows whose fault it is"
