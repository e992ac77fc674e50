"""The Ollama provider against a stand-in over real HTTP."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from common.failures.errors import Transient
from common.task_types import Deferral
from common.wire.messages import Failure
from sandbox.client import Sandbox
from stages.embedder.calling.probes import UnknownModels
from stages.embedder.engine import EmbeddingEngine
from stages.embedder.providers import ollama_pull
from stages.embedder.providers.ollama_pull import tagged
from stages.embedder.session import Session
from tests.embedder.conftest import Make
from tests.embedder.fakes import are_vectors
from tests.waiting import wait_until

NOMIC, MXBAI = "nomic-embed-text", "mxbai-embed-large"
TEXTS = [f"text number {number}" for number in range(10)]


@pytest.fixture
def ollama(make: Make) -> Callable[..., EmbeddingEngine]:
    return lambda **fields: make(processing_mode="ollama", **fields)


def got(engine: EmbeddingEngine, texts: list[str] = TEXTS, model: str = NOMIC) -> tuple[Session, list[Any]]:
    session = engine.session()
    return session, session.embed(model, texts)


def test_vectors_arrive_in_batches_and_their_tokens_are_counted(
    ollama: Callable[..., EmbeddingEngine], sandbox: Sandbox
) -> None:
    session, outcomes = got(ollama(), [f"text {number}" for number in range(150)])
    assert all(are_vectors(outcomes))
    assert outcomes[0].shape == (768,)
    charges = sandbox.charges("ollama")
    assert [charge["inputs"] for charge in charges] == [64, 64, 22]
    assert session.tokens == sum(charge["tokens"] for charge in charges)


def test_a_missing_model_is_downloaded_once_while_others_go_on(
    ollama: Callable[..., EmbeddingEngine], sandbox: Sandbox
) -> None:
    sandbox.settings(ollama={"pull_seconds": 60.0, "pull_steps": 600})
    embedders = [ollama(), ollama()]
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(got, embedder, TEXTS, MXBAI) for embedder in embedders for _ in range(4)]
        for answer in asked:
            _, outcomes = answer.result()
            assert all(isinstance(outcome, Deferral) and outcome.unsent for outcome in outcomes)
    engine = embedders[0]
    assert all(are_vectors(got(engine)[1]))
    assert list(engine.key_cooldowns(time.time())) == [MXBAI]
    assert engine.blockers() == []
    wait_until(lambda: any("%" in embedder.model_notices().get(MXBAI, "") for embedder in embedders))
    sandbox.settings(ollama={"pull_seconds": 0.0})
    for embedder in embedders:
        wait_until(lambda embedder=embedder: not embedder.key_cooldowns(time.time()))  # type: ignore[misc]
        wait_until(lambda embedder=embedder: all(are_vectors(got(embedder, TEXTS, MXBAI)[1])))  # type: ignore[misc]
    assert sandbox.summary()["ollama"]["pulls"] == 1


def test_the_blockers_show_the_progress_of_the_only_model(
    ollama: Callable[..., EmbeddingEngine], sandbox: Sandbox
) -> None:
    sandbox.settings(ollama={"pull_seconds": 60.0, "pull_steps": 600})
    engine = ollama()
    got(engine, model=MXBAI)
    wait_until(lambda: any("% of 274 MB" in blocker for blocker in engine.blockers()))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pull_error": "no space left on device"}, "no space left on device"),
        ({"pullable": {}}, "file does not exist"),
    ],
)
def test_a_download_that_fails_after_its_200_is_reported_and_not_retried_at_once(
    ollama: Callable[..., EmbeddingEngine], sandbox: Sandbox, settings: dict[str, Any], said: str
) -> None:
    sandbox.settings(ollama={"pull_seconds": 0.05, **settings})
    engine = ollama()
    got(engine, model=MXBAI)
    wait_until(lambda: MXBAI not in engine._backends[0].provider.notices())
    wait_until(lambda: not engine.key_cooldowns(time.time()))  # the rest that the first answer asked for
    _, outcomes = got(engine, model=MXBAI)
    assert all(isinstance(outcome, Deferral) for outcome in outcomes)
    assert said in engine.blockers()[0]
    assert sandbox.summary()["ollama"]["pulls"] == 1, "not again at once"


@pytest.mark.parametrize(("settings", "kind"), [({"pull_error": "no space"}, Deferral), ({"pullable": {}}, Failure)])
def test_only_a_model_that_the_registry_does_not_have_counts_as_unknown(
    ollama: Callable[..., EmbeddingEngine], sandbox: Sandbox, settings: dict[str, Any], kind: type
) -> None:
    sandbox.settings(ollama={"pull_seconds": 0.05, **settings})
    engine = ollama(unknown_model="fail")
    engine._backends[0].gate.unknown = UnknownModels(fails_after_s=0.0)
    assert all(isinstance(outcome, Deferral) for outcome in got(engine, model=MXBAI)[1])
    wait_until(lambda: MXBAI not in engine._backends[0].provider.notices())
    wait_until(lambda: not engine.key_cooldowns(time.time()))
    assert all(isinstance(outcome, kind) for outcome in got(engine, model=MXBAI)[1])


def test_a_download_has_its_own_timeout(ollama: Callable[..., EmbeddingEngine], sandbox: Sandbox) -> None:
    sandbox.settings(ollama={"pull_seconds": 60.0, "pull_steps": 600})
    engine = ollama(ollama_model_download_timeout=0.3)
    got(engine, model=MXBAI)
    wait_until(lambda: MXBAI not in engine._backends[0].provider.notices())
    wait_until(lambda: "OLLAMA_MODEL_DOWNLOAD_TIMEOUT" in (got(engine, model=MXBAI) and str(engine.blockers())))


def test_a_process_waits_while_another_one_downloads_the_model(
    ollama: Callable[..., EmbeddingEngine], sandbox: Sandbox, tmp_path: Any
) -> None:
    first = ollama()
    got(first, model=MXBAI)
    wait_until(lambda: not first.model_notices().get(MXBAI) or bool(list((tmp_path / "run").glob("pull-*"))))
    wait_until(lambda: MXBAI not in first._backends[0].provider.notices())
    (lock,) = (tmp_path / "run").glob("pull-*.lock")
    sandbox.reset()
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = ollama()
        got(second, model=MXBAI)
        wait_until(lambda: "another embedder" in second.model_notices().get(MXBAI, ""))
        assert sandbox.summary()["ollama"]["pulls"] == 0
    wait_until(lambda: sandbox.summary()["ollama"]["pulls"] == 1)


def test_a_batch_waits_while_the_queue_of_ollama_is_full(
    ollama: Callable[..., EmbeddingEngine], sandbox: Sandbox
) -> None:
    sandbox.fault("ollama", status=503, body='{"error":"server busy, please try again."}', times=1)
    session, outcomes = got(ollama())
    assert all(are_vectors(outcomes))
    assert session.requests == 2


def test_a_long_text_fails_unless_it_may_be_truncated(ollama: Callable[..., EmbeddingEngine], sandbox: Sandbox) -> None:
    texts = ["short", "word " * 4000, "also short"]
    _, outcomes = got(ollama(), texts)
    assert are_vectors(outcomes) == [True, False, True]
    assert outcomes[1] == Failure(
        "refused_by_provider", "ollama refused the text: the input length exceeds the context length"
    )
    for fields in ({"truncate_long_texts": True}, {"ollama_truncate": True}):
        assert all(are_vectors(got(ollama(**fields), texts)[1]))


def test_a_smaller_cap_of_the_server_is_learned(ollama: Callable[..., EmbeddingEngine], sandbox: Sandbox) -> None:
    sandbox.settings(ollama={"max_inputs": 40})
    engine = ollama()
    for round_ in range(3):
        assert all(are_vectors(got(engine, [f"{round_} {number}" for number in range(64)])[1]))
    assert sandbox.summary()["ollama"]["statuses"]["400"] == 1


@pytest.mark.parametrize("status", [400, 500])
def test_a_text_for_which_the_model_returns_nan_fails_alone(
    ollama: Callable[..., EmbeddingEngine], sandbox: Sandbox, status: int
) -> None:
    body = '{"error":"failed to encode response: json: unsupported value: NaN"}'
    sandbox.fault("ollama", status=status, body=body, body_contains="number 3")
    _, outcomes = got(ollama())
    assert are_vectors(outcomes) == [number != 3 for number in range(10)]


@pytest.mark.parametrize("spoil", ["nan", "zero", "too_few", "too_many", "wrong_length", "not_normalised"])
def test_unusable_vectors_are_asked_for_again(
    ollama: Callable[..., EmbeddingEngine], sandbox: Sandbox, spoil: str
) -> None:
    expected = np.array(got(ollama())[1])
    engine = ollama()
    got(engine, ["so that the length is known"])
    sandbox.fault("ollama", transform=spoil, times=1)
    assert np.allclose(np.array(got(engine)[1]), expected, atol=1e-6)


@pytest.mark.parametrize(
    "fault",
    [
        {"transform": "truncated_json"},
        {"transform": "html"},
        {"transform": "error_in_200"},
        {"transform": "string_error"},
        {"cut": 2000},
        {"drop": "before"},
        {"drop": "after", "reset": True},
        {"framing": "chunked_close"},
        {"status": 500},
    ],
    ids=str,
)
def test_a_transient_fault_fails_no_task(
    ollama: Callable[..., EmbeddingEngine], sandbox: Sandbox, fault: dict[str, Any]
) -> None:
    sandbox.fault("ollama", **fault, times=2)
    session, outcomes = got(ollama())
    assert all(are_vectors(outcomes))
    assert session.requests in {3, 4}
    sandbox.fault("ollama", **fault)
    assert all(isinstance(outcome, Deferral) for outcome in got(ollama())[1])


@pytest.mark.parametrize("fault", [{"delay": 60.0}, {"dribble": 1000}], ids=str)
def test_a_response_slower_than_the_timeout_is_given_up(
    ollama: Callable[..., EmbeddingEngine], sandbox: Sandbox, fault: dict[str, Any]
) -> None:
    sandbox.fault("ollama", **fault)
    begun = time.monotonic()
    assert all(isinstance(outcome, Deferral) for outcome in got(ollama(ollama_timeout=0.3, max_retries=0))[1])
    assert time.monotonic() - begun < 10, "long before the response"


def test_texts_without_a_connection_count_as_not_sent(ollama: Callable[..., EmbeddingEngine], sandbox: Sandbox) -> None:
    sandbox.down("ollama")
    _, outcomes = got(ollama())
    assert all(isinstance(outcome, Deferral) and outcome.unsent for outcome in outcomes)
    sandbox.up("ollama")


def test_keep_alive_and_dimensions_are_sent(ollama: Callable[..., EmbeddingEngine], sandbox: Sandbox) -> None:
    sandbox.fault("ollama", status=500, body_contains='"keep_alive": -1', times=1)
    session, outcomes = got(ollama(ollama_keep_alive="-1", embedding_dimensions=64))
    assert session.requests == 2
    assert outcomes[0].shape == (64,)


def test_hybrid_sends_each_model_to_the_provider_that_has_it(make: Make, sandbox: Sandbox) -> None:
    engine = make(processing_mode="hybrid")
    assert all(are_vectors(got(engine, model=NOMIC)[1]))
    assert all(are_vectors(got(engine, model="text-embedding-3-small")[1]))
    assert [charge["inputs"] for charge in sandbox.charges("ollama")] == [10]
    assert [charge["inputs"] for charge in sandbox.charges("openai")] == [10]
    assert engine.facts["providers"] == ["ollama", "openai"]


@pytest.mark.parametrize(
    ("name", "listed"),
    [("a", "a:latest"), ("a:v1", "a:v1"), ("host:5000/a", "host:5000/a:latest"), ("x/a:v1", "x/a:v1")],
)
def test_a_model_name_without_a_tag_gets_the_tag_latest(name: str, listed: str) -> None:
    assert tagged(name) == listed


@pytest.mark.parametrize("body", ['{"models": null}', "{}", "", " \n", "[]", '{"models": [null, {"name": null}, {}]}'])
def test_a_list_without_models_in_any_form_lets_a_missing_model_be_pulled(
    ollama: Callable[..., EmbeddingEngine], sandbox: Sandbox, body: str
) -> None:
    sandbox.fault("ollama", path="/api/tags", status=204 if body == "" else 200, body=body)
    engine = ollama()
    deadline = time.monotonic() + 20
    while not all(are_vectors(got(engine, model="all-minilm")[1])):
        assert time.monotonic() < deadline
    assert sandbox.summary()["ollama"]["pulls"] == 1


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'\xef\xbb\xbf{"models": [{"model": "a"}, {"name": "b:1"}]}', {"a:latest", "b:1"}),
        (b'["a"]', {"a:latest"}),
        (b"null", set()),
        (b"<html>", None),
        (b'{"models": 3}', None),
    ],
)
def test_odd_lists_of_models_are_read_or_refused(sandbox: Sandbox, body: bytes, names: set[str] | None) -> None:
    sandbox.fault("ollama", path="/api/tags", status=200, body=body.decode())
    url = sandbox.environment()["OLLAMA_BASE_URL"]
    if names is None:
        with pytest.raises(Transient):
            ollama_pull.models(url)
    else:
        assert ollama_pull.models(url) == names
