"""The whole pipeline against a provider that refuses everything, one text, or one model, in the words of gateways."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from tests.providers.conftest import running
from tests.providers.job import MODEL, Job, ready, wait_for_words

TASKS = 300
OUTAGE_S = 5.0
POISON = "a poisoned text"


def error(message: str, code: str = "") -> str:
    return json.dumps({"error": {"message": message, "type": code or None, "param": None, "code": code or None}})


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "budget": (
        {"status": 400, "body": error("Budget has been exceeded! Current cost: 5.1")},
        "Budget has been exceeded",
    ),
    "not loaded": ({"status": 400, "body": error("No models loaded. Please load a model.")}, "No models loaded"),
    "proxy's page": ({"status": 400, "body": "<html><h1>400 Bad Request</h1></html>"}, "an HTML page"),
    "413 page": ({"status": 413, "body": "<html>413 Request Entity Too Large</html>"}, "an HTML page"),
    "operation": ({"status": 400, "body": error("The model is not valid for this operation")}, "for this operation"),
    "422 plain": ({"status": 422, "body": "upstream rejected the request"}, "upstream rejected"),
    "403 quota": ({"status": 403, "body": error("Quota of this virtual key is exhausted")}, "virtual key"),
    "402": ({"status": 402, "body": error("Insufficient credits")}, "Insufficient credits"),
    "405 page": ({"status": 405, "body": "<html>Not Allowed</html>"}, "405"),
    "415": ({"status": 415, "body": ""}, "415"),
    "501": ({"status": 501, "body": "Not implemented"}, "501"),
    "400 empty": ({"status": 400, "body": ""}, "no reason given"),
    "200 with an error": ({"status": 200, "body": error("no backend is available")}, "no backend is available"),
    "500": ({"status": 500, "body": error("the engine has died")}, "the engine has died"),
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with running(tmp_path_factory.mktemp("pipeline")) as pipeline:
        yield pipeline


@pytest.fixture
def job(outside: Sandbox, pipeline: Pipeline) -> Job:
    outside.clear_faults()
    pipeline.wait_ready()
    return Job(pipeline)


def assert_outage_fails_nothing(job: Job, provider: str, fault: dict[str, Any], words: str, **fields: Any) -> None:
    """Refuse everything for `OUTAGE_S` seconds, with one poisoned text among the tasks."""
    poison = job.sandbox.fault(provider, body_contains=POISON, status=400, body=error("cannot read it"))
    outage = job.sandbox.fault(provider, path="embed", **fault)
    job.queue(TASKS - 1, **fields).queue_texts(f"{POISON} {words}", model=fields["model"])
    told = wait_for_words(job.pipeline, words)
    assert "canary" in told or "refused" in told or "used up" in told
    job.pipeline.run_for(OUTAGE_S)
    assert ready(job.pipeline)[0] == 503
    assert job.accepted == 0, "nothing has failed"
    assert job.requests <= 20
    job.sandbox.clear_faults(outage)
    job.wait_done(90)  # the tests share a pipeline, and so its ten wasted requests a minute
    job.sandbox.clear_faults(poison)
    assert job.states == {"succeeded": TASKS - 1, "failed": 1}
    assert set(job.errors) == {job.ids[-1]}
    assert job.errors[job.ids[-1]]["code"] == "refused_by_provider"
    job.pipeline.wait_ready()


@pytest.mark.parametrize("name", REFUSALS)
def test_a_provider_that_refuses_everything_fails_no_task_and_a_poisoned_text_fails_alone_afterwards(
    job: Job, name: str
) -> None:
    fault, words = REFUSALS[name]
    assert_outage_fails_nothing(job, "openai", fault, words, model=MODEL, text=f"{name} {{n}}")


def test_a_setting_that_ollama_cannot_parse_fails_no_task(tmp_path: Path) -> None:
    model = "nomic-embed-text"
    with running(tmp_path, PROCESSING_MODE="ollama") as pipeline:
        words = 'time: unknown unit " minutes" in duration "10 minutes"'
        fault = {"status": 400, "body": json.dumps({"error": words})}
        assert_outage_fails_nothing(Job(pipeline, "ollama"), "ollama", fault, "time: unknown unit", model=model)


def test_texts_on_which_the_provider_always_fails_end_as_failed_and_others_are_not_disturbed(job: Job) -> None:
    job.sandbox.fault("openai", body_contains=POISON, status=500, body=error("the engine has died"))
    bad = Job(job.pipeline).queue_texts(*(f"{POISON} {number}" for number in range(10)))
    job.queue(TASKS)
    job.wait_done(20)
    assert set(bad.wait_done(20).errors) == set(bad.ids)
    assert job.errors == {}
    status, told = ready(job.pipeline)
    assert status == 200
    assert "the engine has died" not in told  # an embedder may still tell of an outage of another test


WORDINGS: dict[str, dict[str, Any]] = {
    "404 openai": {"status": 404, "body": error("The model `M` does not exist.", "model_not_found")},
    "404 azure": {
        "status": 404,
        "body": error("The API deployment for this resource does not exist", "DeploymentNotFound"),
    },
    "404 page": {"status": 404, "body": "404 page not found"},
    "403 openai": {"status": 403, "body": error("Project `p` does not have access to model `M`", "model_not_found")},
    "403 not allowed": {"status": 403, "body": error("You are not allowed to generate embeddings from this model")},
    "401 litellm": {
        "status": 401,
        "body": error("key not allowed to access model. It can only access models=['a']. Tried M", "auth_error"),
    },
    "401 without a name": {"status": 401, "body": error("Unauthorized")},
    "400 litellm": {"status": 400, "body": error("/embeddings: Invalid model name passed in model=M")},
    "400 openrouter": {"status": 400, "body": error("M is not a valid model ID")},
    "400 budget": {"status": 400, "body": error("Budget has been exceeded for model M")},
    "429 quota": {"status": 429, "body": error("no quota for M", "insufficient_quota")},
    "501": {"status": 501, "body": error("this model does not support embeddings")},
    "500": {"status": 500, "body": error("failed to load M")},
    "200 with an error": {"status": 200, "body": error("model M not found")},
    "400 page": {"status": 400, "body": "<html>Bad Request</html>"},
}


@pytest.mark.parametrize("name", WORDINGS)
def test_one_task_of_a_model_that_the_provider_does_not_serve_waits_alone_and_is_told(job: Job, name: str) -> None:
    model = f"model-{name.replace(' ', '-')}"
    fault = {**WORDINGS[name], "body": WORDINGS[name]["body"].replace("`M`", f"`{model}`").replace("M", model)}
    refusing = job.sandbox.fault("openai", path="embed", body_contains=f'"{model}"', **fault)
    Job(job.pipeline).queue_texts("served before").wait_done()
    odd = Job(job.pipeline).queue_texts("of another model", model=model)
    for part in range(4):
        Job(job.pipeline).queue(TASKS // 4, text=f"{name} {part} {{n}}").wait_done(10)
    told = wait_for_words(job.pipeline, model, status=200)
    assert "openai" not in told.replace(model, "").split(":")[0], told
    assert not [task for task in job.sandbox.record() if task["id"] in odd.ids and task["state"] != "pending"]
    models = job.sandbox.settings()["openai"]["models"]
    job.sandbox.settings(openai={"models": {**models, model: 1536}})
    job.sandbox.clear_faults(refusing)
    odd.wait_done(60)
    assert odd.errors == {}
