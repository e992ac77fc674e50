"""The OpenAI provider against a stand-in over real HTTP, with every fault of issue 5."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from common.process import metrics
from common.task_types import Deferral
from common.wire.messages import Failure
from sandbox.client import Sandbox
from tests.embedder.conftest import Make
from tests.embedder.fakes import are_vectors
from tests.embedder.openai_texts import ADA, LARGE, SMALL, got, truth
from tests.waiting import wait_until


def test_vectors_arrive_and_tokens_and_requests_are_counted(make: Make, sandbox: Sandbox) -> None:
    labels = {"model": SMALL, "type": "total"}
    before = metrics.REGISTRY.get_sample_value("openai_tokens_used_total", labels) or 0
    session, outcomes = got(make())
    paid = sandbox.charges("openai")
    assert are_vectors(outcomes) == [True] * 10
    assert {outcome.shape for outcome in outcomes} == {(1536,)}
    assert [charge["inputs"] for charge in paid] == [10]
    assert session.tokens == paid[0]["tokens"]
    assert session.requests == 1
    assert metrics.REGISTRY.get_sample_value("openai_tokens_used_total", labels) == before + session.tokens
    assert metrics.REGISTRY.get_sample_value("openai_requests_total", {"model": SMALL, "status": "200"})


def test_dimensions_are_sent_only_to_models_that_allow_them(make: Make) -> None:
    engine = make(embedding_dimensions=256)
    assert got(engine)[1][0].shape == (256,)
    assert got(engine, model=LARGE)[1][0].shape == (256,)
    assert got(engine, model=ADA)[1][0].shape == (1536,)


def test_dimensions_that_another_vendor_s_model_refuses_are_left_out(make: Make, sandbox: Sandbox) -> None:
    sandbox.settings(openai={"models": {"ada-002-alike": 64}})
    engine = make(embedding_dimensions=32)
    for _ in range(2):
        assert got(engine, model="ada-002-alike")[1][0].shape == (64,)
    assert sandbox.summary()["openai"]["requests"] == 4, "one refused, one canary to learn the length, and the batches"


def test_dimensions_out_of_range_fail_no_text_and_are_reported(make: Make, sandbox: Sandbox) -> None:
    engine = make(embedding_dimensions=2000)
    assert all(isinstance(outcome, Deferral) for outcome in got(engine)[1])
    assert "dimensions" in engine.blockers()[0]
    assert sandbox.summary()["openai"]["requests"] == 1


def test_a_server_without_base64_is_asked_for_lists_of_numbers(make: Make, sandbox: Sandbox) -> None:
    expected = truth(make)
    body = '{"detail":[{"loc":["body","encoding_format"],"msg":"Extra inputs are not permitted"}]}'
    sandbox.fault("openai", status=422, body=body, body_contains='"encoding_format"')
    engine = make()
    for _ in range(2):
        assert np.allclose(np.array(got(engine)[1]), expected, atol=1e-7)
    assert sandbox.summary()["openai"]["requests"] == 1 + 3


def test_a_refused_text_fails_alone_with_the_provider_s_redacted_message(make: Make, sandbox: Sandbox) -> None:
    body = '{"error":{"message":"cannot read \'text number 7\' of key sk-sandbox-key","code":"invalid"}}'
    sandbox.fault("openai", status=400, body=body, body_contains="number 7")
    _, outcomes = got(make())
    assert are_vectors(outcomes) == [number != 7 for number in range(10)]
    assert outcomes[7] == Failure("refused_by_provider", "openai refused the text: cannot read '…' of key …")
    assert sum(charge["inputs"] for charge in sandbox.charges("openai")) == 9 + 1, "one of them a canary"


@pytest.mark.parametrize(
    ("limits", "texts"),
    [
        ({"max_inputs": 25}, [f"short {number}" for number in range(64)]),
        ({"max_tokens_per_request": 1000}, [f"{number} " + "word " * 30 for number in range(64)]),
    ],
)
def test_a_gateway_s_smaller_cap_is_learned(
    make: Make, sandbox: Sandbox, limits: dict[str, int], texts: list[str]
) -> None:
    sandbox.settings(openai=limits)
    engine = make()
    assert all(are_vectors(got(engine, texts)[1]))
    refused = sandbox.summary()["openai"]["statuses"]["400"]
    assert refused <= 3
    assert all(are_vectors(got(engine, [text + "!" for text in texts])[1]))
    assert sandbox.summary()["openai"]["statuses"]["400"] == refused


def test_configured_caps_avoid_refusals(make: Make, sandbox: Sandbox) -> None:
    texts = [f"{number} " + "a b c d " * 25 for number in range(40)]
    assert all(are_vectors(got(make(embed_batch_tokens=1000), texts)[1]))
    assert max(charge["tokens"] for charge in sandbox.charges("openai")) <= 1000
    assert set(sandbox.summary()["openai"]["statuses"]) == {"200"}


@pytest.mark.parametrize("spoil", ["nan", "zero", "too_few", "too_many", "wrong_length", "not_normalised", "shuffled"])
def test_unusable_vectors_are_asked_for_again(make: Make, sandbox: Sandbox, spoil: str) -> None:
    expected = truth(make)
    engine = make()
    got(engine, ["so that the length is known"])
    sandbox.fault("openai", transform=spoil, times=1)
    assert np.allclose(np.array(got(engine)[1]), expected, atol=1e-6)


@pytest.mark.parametrize("spoil", ["nan", "zero", "too_few"])
def test_texts_whose_vectors_stay_unusable_fail_alone_and_within_few_requests(
    make: Make, sandbox: Sandbox, spoil: str
) -> None:
    engine = make()
    got(engine, ["so that the length is known"])
    sandbox.fault("openai", transform=spoil)
    _, outcomes = got(engine)
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert {failure.code for failure in failures} == {"invalid_vector"}
    assert len(failures) + sum(are_vectors(outcomes)) == 10
    assert len(failures) == 1
    assert sandbox.summary()["openai"]["requests"] < 25


@pytest.mark.parametrize("spoil", ["too_many", "wrong_length"])
def test_texts_wait_while_no_vector_of_the_provider_is_usable(make: Make, sandbox: Sandbox, spoil: str) -> None:
    engine = make()
    got(engine, ["so that the length is known"])
    sandbox.fault("openai", transform=spoil)
    _, outcomes = got(engine)
    assert all(isinstance(outcome, Deferral) for outcome in outcomes)
    assert sandbox.summary()["openai"]["requests"] == 3, "a canary shows that the texts are not to blame"


FAULTS: list[dict[str, Any]] = [
    {"transform": "truncated_json"},
    {"transform": "html"},
    {"cut": 2000},
    {"cut": 2000, "reset": True},
    {"cut": 0},
    {"drop": "before"},
    {"drop": "after", "reset": True},
    {"framing": "chunked_close"},
    {"status": 502, "body": "<html>Bad gateway</html>"},
    {"status": 503},
    {"status": 408},
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_transient_fault_fails_no_task(make: Make, sandbox: Sandbox, fault: dict[str, Any]) -> None:
    expected = truth(make)
    sandbox.fault("openai", **fault, times=2)
    session, outcomes = got(make())
    assert np.allclose(np.array(outcomes), expected, atol=1e-6)
    assert session.requests == 3

    sandbox.fault("openai", **fault)
    session, outcomes = got(make())
    assert all(isinstance(outcome, Deferral) and not outcome.unsent for outcome in outcomes)
    assert session.requests == 3


@pytest.mark.parametrize(
    "fault", [{"transform": "error_in_200"}, {"transform": "string_error"}, {"status": 500}], ids=str
)
def test_a_server_error_fails_no_task_and_delays_only_its_text(
    make: Make, sandbox: Sandbox, fault: dict[str, Any]
) -> None:
    expected = truth(make)
    sandbox.fault("openai", **fault, times=2)
    assert np.allclose(np.array(got(make())[1]), expected, atol=1e-6)
    sandbox.fault("openai", **fault, body_contains="number 7")
    assert are_vectors(got(make())[1]) == [number != 7 for number in range(10)]
    sandbox.fault("openai", **fault)
    session, outcomes = got(make())
    assert all(isinstance(outcome, Deferral) and not outcome.unsent for outcome in outcomes)
    assert session.requests <= 5


@pytest.mark.parametrize("fault", [{"delay": 60.0}, {"dribble": 1000}], ids=str)
def test_a_response_slower_than_the_timeout_is_given_up(make: Make, sandbox: Sandbox, fault: dict[str, Any]) -> None:
    sandbox.fault("openai", **fault)
    begun = time.monotonic()
    _, outcomes = got(make(openai_timeout=0.3, max_retries=0))
    assert all(isinstance(outcome, Deferral) for outcome in outcomes)
    assert time.monotonic() - begun < 10, "long before the response"


def test_texts_without_a_connection_count_as_not_sent(make: Make, sandbox: Sandbox) -> None:
    sandbox.down("openai")
    engine = make(circuit_breaker_threshold=2)
    _, outcomes = got(engine)
    assert all(isinstance(outcome, Deferral) and outcome.unsent for outcome in outcomes)
    assert engine.blockers()[0].startswith("openai: no connection")
    assert list(engine.key_cooldowns(time.time())) == ["*"]
    sandbox.up("openai")
    wait_until(lambda: not engine.key_cooldowns(time.time()))
    assert all(are_vectors(got(engine)[1]))
    assert engine.blockers() == []


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "30"}, 30),
        ({"retry-after-ms": "30500"}, 30.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360),
    ],
)
def test_a_429_pauses_all_models_of_the_provider(
    make: Make, sandbox: Sandbox, headers: dict[str, str], seconds: float
) -> None:
    sandbox.fault("openai", status=429, headers=headers)
    engine = make()
    _, outcomes = got(engine)
    assert outcomes[0].until - time.time() == pytest.approx(seconds, abs=5)
    assert engine.key_cooldowns(time.time())["*"] - time.time() == pytest.approx(seconds, abs=5)
    session, outcomes = got(engine, model=LARGE)
    assert session.requests == 0
    assert all(outcome.unsent for outcome in outcomes)


def test_a_batch_waits_for_the_end_of_a_short_pause(make: Make, sandbox: Sandbox) -> None:
    sandbox.fault("openai", status=429, headers={"retry-after-ms": "300"}, times=1)
    begun = time.monotonic()
    assert all(are_vectors(got(make())[1]))
    assert time.monotonic() - begun >= 0.3


def test_rate_limit_headers_of_a_success_slow_requests_down(make: Make, sandbox: Sandbox) -> None:
    headers = {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "500s",
    }
    sandbox.settings(openai={"headers": headers})
    engine = make()
    assert all(are_vectors(got(engine)[1]))
    assert engine.key_cooldowns(time.time())["*"] - time.time() == pytest.approx(50, abs=5)


@pytest.mark.parametrize(
    ("fields", "body", "said"),
    [
        ({"status": 429}, '{"error":{"message":"You exceeded your quota","code":"insufficient_quota"}}', "quota"),
        ({"status": 401}, '{"error":{"message":"Incorrect API key provided: sk-s***key."}}', "OPENAI_API_KEY"),
        ({"status": 403}, '{"error":{"message":"Country not supported"}}', "Country not supported"),
        ({"status": 404}, "404 page not found", "OPENAI_BASE_URL"),
    ],
)
def test_an_error_that_needs_an_operator_opens_the_breaker_at_once(
    make: Make, sandbox: Sandbox, fields: dict[str, Any], body: str, said: str
) -> None:
    sandbox.fault("openai", **fields, body=body)
    engine = make()
    session, outcomes = got(engine)
    assert session.requests == 1
    assert all(isinstance(outcome, Deferral) for outcome in outcomes)
    blocker = engine.blockers()[0]
    assert said in blocker
    assert "sk-" not in blocker
    assert list(engine.key_cooldowns(time.time())) == ["*"]


def test_a_model_that_does_not_exist_stops_only_its_own_tasks(make: Make, sandbox: Sandbox) -> None:
    engine = make()
    _, outcomes = got(engine, model="no-such-model")
    assert all(isinstance(outcome, Deferral) for outcome in outcomes)
    assert "does not exist" in engine.blockers()[0]
    assert all(are_vectors(got(engine)[1]))
    assert engine.blockers() == []
    assert list(engine.key_cooldowns(time.time())) == ["no-such-model"]


def test_texts_too_long_for_the_model_are_never_sent(make: Make, sandbox: Sandbox) -> None:
    long = "word " * 9000
    _, outcomes = got(make(), [long, "short"])
    assert outcomes[0].code == "text_too_long"
    assert isinstance(outcomes[1], np.ndarray)
    assert set(sandbox.summary()["openai"]["statuses"]) == {"200"}


def test_neither_key_nor_texts_are_logged_or_returned(
    make: Make, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "the client's diagnosis is confidential"
    for status in (400, 401, 429, 500):
        sandbox.clear_faults()
        body = f'{{"error":{{"message":"key sk-sandbox-key, input {secret}"}}}}'
        sandbox.fault("openai", status=status, body=body)
        _, outcomes = got(make(max_retries=0), [secret, secret + "!"])
        assert "diagnosis" not in str(outcomes)
    shown = capsys.readouterr()
    for leak in ("diagnosis", "sk-sandbox-key"):
        assert leak not in shown.out + shown.err
