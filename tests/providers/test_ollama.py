"""The mode `ollama` through the whole pipeline: batches, a missing model, a full queue."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from tests.providers.conftest import running
from tests.providers.job import Job, counted, wait_for_words

NOMIC, MXBAI = "nomic-embed-text", "mxbai-embed-large"
QUARTERS = ["25", "50", "75", "100"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    settings = {
        "PROCESSING_MODE": "ollama",
        "OLLAMA_BATCH_SIZE": 32,
        "SUPPORTED_MODELS": f'["{NOMIC}", "{MXBAI}", "gone"]',
    }
    with running(tmp_path_factory.mktemp("ollama"), **settings) as pipeline:
        # once one model works, the service is ready although others are missing
        Job(pipeline, "ollama").queue(1, model=NOMIC).wait_done()
        pipeline.wait_until(lambda: counted(pipeline, "ollama_tokens_used") > 0, "its tokens to be counted")
        yield pipeline


@pytest.fixture
def job(outside: Sandbox, pipeline: Pipeline) -> Job:
    return Job(pipeline, "ollama")


def test_batches_have_the_configured_size_and_their_tokens_are_counted(job: Job, pipeline: Pipeline) -> None:
    used = {"model": NOMIC, "type": "total"}
    before = counted(pipeline, "ollama_tokens_used", **used)
    requests = counted(pipeline, "ollama_requests", model=NOMIC, status="200")
    job.queue(500, model=NOMIC).wait_done()
    assert job.states == {"succeeded": 500}
    assert (job.paid, job.paid_again) == (500, 0)
    assert max(charge["inputs"] for charge in job.charges) == 32
    tokens = before + sum(charge["tokens"] for charge in job.charges)
    pipeline.wait_until(lambda: counted(pipeline, "ollama_tokens_used", **used) == tokens, "the tokens to be counted")
    assert counted(pipeline, "ollama_requests", model=NOMIC, status="200") == requests + len(job.charges)


def test_a_missing_model_is_downloaded_once_although_two_embedders_need_it(job: Job, pipeline: Pipeline) -> None:
    pulls = job.sandbox.summary()["ollama"]["pulls"]
    job.sandbox.settings(ollama={"pull_seconds": 80.0, "pull_steps": 400})
    job.queue(500, model=MXBAI)
    words = wait_for_words(pipeline, f"{MXBAI} is being downloaded: ", "% of 274 MB", status=200)
    assert NOMIC not in words
    other = Job(pipeline, "ollama").queue(50, model=NOMIC)
    pipeline.wait_until(lambda: len(other.charges) >= 2, "others to go on meanwhile")
    assert pipeline.events("model_pull_done") == []
    job.sandbox.settings(ollama={"pull_seconds": 0.0})  # others have been seen to go on: now it may end
    job.wait_done()
    other.wait_done()
    assert job.states == {"succeeded": 550}
    assert job.sandbox.summary()["ollama"]["pulls"] == pulls + 1
    steps = [event["progress"] for event in pipeline.events("model_pull_progress") if event["model"] == MXBAI]
    told = [step.split("%")[0] for step in steps]
    assert [step for step in told if step in QUARTERS] == QUARTERS, "and every ten seconds too"
    assert {event["stage"] for event in pipeline.events("batch_started")} == {"embedder_00", "embedder_01"}
    pipeline.wait_until(lambda: MXBAI not in str(pipeline.get("/ready")[1]), "/ready to forget it")


def test_a_failed_download_is_reported_and_its_tasks_wait(job: Job, pipeline: Pipeline) -> None:
    pulls = job.sandbox.summary()["ollama"]["pulls"]
    job.queue(20, model="gone")
    wait_for_words(pipeline, "gone could not be downloaded: pull model manifest: file does not exist", status=200)
    pulls = job.sandbox.summary()["ollama"]["pulls"] - pulls
    assert pulls <= 2, "once by each embedder, and not again for five seconds"
    library = job.sandbox.settings()["ollama"]["pullable"]
    job.sandbox.settings(ollama={"pullable": {**library, "gone:latest": 64}, "pull_seconds": 0.1})
    job.wait_done()
    assert job.states == {"succeeded": 20}


def test_tasks_wait_while_the_queue_of_ollama_is_full(job: Job) -> None:
    job.sandbox.settings(ollama={"max_under_way": 1, "latency_seconds": 0.02})
    job.queue(200, text="queued {n}", model=NOMIC).wait_done()
    assert job.states == {"succeeded": 200}
    assert job.statuses["503"] > 0
    assert job.paid_again == 0


def test_a_task_of_an_unsupported_model_fails_and_the_error_names_the_setting(job: Job) -> None:
    job.queue(3, model="all-minilm").wait_done()
    assert {error["code"] for error in job.errors.values()} == {"unsupported_model"}
    assert job.errors[job.ids[0]]["message"] == "the model all-minilm is not in SUPPORTED_MODELS"
    assert job.requests == 0
