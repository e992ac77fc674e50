"""Each text is paid for once, whatever else is in its batch, and however many tasks contain it."""

from __future__ import annotations

from sandbox.pipeline import Pipeline
from tests.providers.job import Job, counted

REFUSED = '{"error": {"message": "this input cannot be embedded", "type": "invalid_request_error", "code": null}}'


def test_one_bad_text_of_two_thousand_fails_alone(job: Job) -> None:
    job.sandbox.fault("openai", body_contains="poisoned", status=400, body=REFUSED)
    job.queue(1000).queue_texts("a poisoned text").queue(999).wait_done()
    assert job.states == {"succeeded": 1999, "failed": 1}
    ((task_id, error),) = job.errors.items()
    assert task_id == job.ids[1000]
    assert error == {
        "code": "refused_by_provider",
        "message": "openai refused the text: this input cannot be embedded",
    }
    assert 1999 <= job.paid <= 1999 + 3  # the others once, and a few canaries, which show whose fault it is
    assert job.paid_again <= 2  # the second canary, and the third


def test_identical_texts_are_paid_once(job: Job) -> None:
    job.queue(500, text="one and the same", distinct=False).wait_done()
    assert job.states == {"succeeded": 500}
    assert (job.paid, job.paid_again) == (1, 0)


def test_texts_that_were_embedded_before_cost_nothing(job: Job, pipeline: Pipeline) -> None:
    texts = [f"seen before {number}" for number in range(400)]
    job.queue_texts(*texts).wait_done()
    assert job.paid == 400
    again = Job(pipeline).queue_texts(*reversed(texts)).wait_done()
    assert again.states == {"succeeded": 400}
    assert (again.paid, again.requests) == (0, 0)
    results = job.sandbox.results()
    assert [results[i] for i in job.ids] == [results[i] for i in reversed(again.ids)]
    pipeline.wait_until(lambda: counted(pipeline, "embedding_cache_hits") >= 400, "the hits to be counted")


def test_texts_that_no_provider_accepts_are_never_sent(job: Job) -> None:
    job.queue_texts("word " * 9000, "   ", "fine").wait_done()
    assert job.states == {"failed": 2, "succeeded": 1}
    long, empty = (job.errors[task_id] for task_id in job.ids[:2])
    assert long["code"] == "text_too_long"
    assert "9001 tokens or more, text-embedding-3-small takes 8192" in long["message"]
    assert empty["message"] == "content.text is empty"
    assert (job.paid, job.requests) == (1, 1)
