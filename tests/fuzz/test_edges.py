"""The three HTTP edges against any answer: each gives one of the project's own outcomes, in time."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from common.api.responses import ApiResponse
from common.failures.errors import Permanent, Transient
from common.failures.retry import LONGEST_PATIENCE
from common.wire.messages import Token
from stages.fetcher.actions import PollFailed
from stages.fetcher.page import PendingPage
from stages.publisher.verdicts import Verdict, verdict
from stages.token_broker.issuer import Issuer
from stages.token_broker.token_response import Grant
from tests import samples
from tests.edges.api import Api, api
from tests.fuzz.wire import Wire, answers, wire

TIMEOUT = 1.0
SLACK = 10.0
quick = settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def server() -> Iterator[Wire]:
    with wire() as running:
        yield running


@pytest.fixture(scope="module")
def edges(server: Wire) -> Iterator[Api]:
    with api(server.url, Token("t", 1e12, "f"), request_timeout=TIMEOUT) as made:
        yield made


@pytest.fixture(scope="module")
def issuer(server: Wire) -> Issuer:
    return Issuer(samples.settings(oauth2_token_url=server.url, request_timeout=TIMEOUT), lambda _: None)


@quick
@given(answers())
def test_poll(server: Wire, edges: Api, answer: bytes) -> None:
    server.answer = answer
    began = time.monotonic()
    found = edges.get()
    assert time.monotonic() - began < TIMEOUT + SLACK
    if isinstance(found, PollFailed):
        assert isinstance(found.error, Transient)
    else:
        assert isinstance(found, PendingPage)
        assert found.candidates == []
        assert re.search(rb"HTTP/[\d.]+ 200[^\d]", answer)


@quick
@given(answers())
def test_patch(server: Wire, edges: Api, answer: bytes) -> None:
    server.answer = answer
    began = time.monotonic()
    found = edges.patch_one("0" * 24)
    assert time.monotonic() - began < TIMEOUT + SLACK
    assert isinstance(found, ApiResponse)
    assert 0 <= found.retry_after <= LONGEST_PATIENCE
    if verdict(found.status) in {Verdict.ACCEPTED, Verdict.GONE, Verdict.REFUSED}:  # what ends a task
        assert re.search(rb"HTTP/[\d.]+ %d[^\d]" % found.status, answer)


@quick
@given(answers())
def test_token(server: Wire, issuer: Issuer, answer: bytes) -> None:
    server.answer = answer
    began = time.monotonic()
    with contextlib.suppress(Transient, Permanent):
        assert isinstance(issuer.fetch(), Grant)
    assert time.monotonic() - began < TIMEOUT + SLACK
