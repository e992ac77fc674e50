"""The three HTTP edges with arbitrary responses: each returns one of its documented outcomes, in time."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from common.api.responses import ApiResponse
from common.api.status import Meaning, meaning
from common.failures.errors import Permanent, Transient
from common.failures.wait_hints import LONGEST_WAIT_S
from common.wire.messages import Token
from stages.fetcher.actions import PollFailed
from stages.fetcher.page import PendingPage
from stages.token_broker.issuer import Issuer
from stages.token_broker.token_response import Grant
from tests import samples
from tests.edges.api import Api, api
from tests.fuzz.wire import Wire, responses, wire

TIMEOUT_S = 1.0
SLACK_S = 10.0
quick = settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def server() -> Iterator[Wire]:
    with wire() as running:
        yield running


@pytest.fixture(scope="module")
def edges(server: Wire) -> Iterator[Api]:
    with api(server.url, Token("t", 1e12, "f"), request_timeout=TIMEOUT_S) as made:
        yield made


@pytest.fixture(scope="module")
def issuer(server: Wire) -> Issuer:
    return Issuer(samples.settings(oauth2_token_url=server.url, request_timeout=TIMEOUT_S), lambda _: None)


@quick
@given(responses())
def test_any_response_to_a_poll_gives_a_page_or_a_transient_error(server: Wire, edges: Api, response: bytes) -> None:
    server.response = response
    began = time.monotonic()
    found = edges.get()
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    if isinstance(found, PollFailed):
        assert isinstance(found.error, Transient)
    else:
        assert isinstance(found, PendingPage)
        assert found.candidates == []
        assert re.search(rb"HTTP/[\d.]+ 20[04][^\d]", response)


@quick
@given(responses())
def test_any_response_to_a_patch_gives_an_api_response(server: Wire, edges: Api, response: bytes) -> None:
    server.response = response
    began = time.monotonic()
    found = edges.patch_one("0" * 24)
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    assert isinstance(found, ApiResponse)
    assert 0 <= found.retry_after_s <= LONGEST_WAIT_S
    if meaning(found.status) in {Meaning.OK, Meaning.GONE, Meaning.REFUSED}:  # outcomes that end a task
        assert re.search(rb"HTTP/[\d.]+ %d[^\d]" % found.status, response)


@quick
@given(responses())
def test_any_response_of_the_token_endpoint_gives_a_grant_or_an_error(
    server: Wire, issuer: Issuer, response: bytes
) -> None:
    server.response = response
    began = time.monotonic()
    with contextlib.suppress(Transient, Permanent):
        assert isinstance(issuer.fetch(), Grant)
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
