"""The requests of the service, and the responses of the sandbox and of a NestJS application, fit docs/openapi.yaml."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
import requests
import yaml
from openapi_core import OpenAPI
from openapi_core.contrib.requests import RequestsOpenAPIRequest, RequestsOpenAPIResponse
from openapi_core.exceptions import OpenAPIError

from common import USER_AGENT, __version__
from common.api.curl import request_headers
from common.wire.messages import Failure
from sandbox.client import Sandbox
from stages.fetcher.claim_requests import BODY as CLAIM
from stages.publisher.body import body
from tests import samples
from tests.edges.counterparts import CLIENT_ID, CLIENT_SECRET, nest

PAGE = Path(__file__).parent.parent.parent / "docs" / "openapi.yaml"
DOCUMENT = yaml.safe_load(PAGE.read_text())
UNKNOWN_ID = "f" * 24


class Checked:
    """An API; each request to it and each response is checked against the document."""

    def __init__(self, url: str, token_url: str, client: tuple[str, str], queue: Callable[[int], list[str]]) -> None:
        self.url = url
        self.queue = queue
        self._token_url = token_url
        self._client = client
        self._document = OpenAPI.from_dict({**DOCUMENT, "servers": [{"url": url}]})

    def token(self, scope: str = "read write") -> str:
        auth = (quote_plus(self._client[0]), quote_plus(self._client[1]))
        form = {"grant_type": "client_credentials", "scope": scope}
        return str(requests.post(self._token_url, form, auth=auth, timeout=30).json()["access_token"])

    def send(
        self, method: str, path: str, content: bytes | None = None, *, token: str | None = None, valid: bool = True
    ) -> requests.Response:
        """Send one request with the service's own headers; `valid`: the request must be as documented, too."""
        headers = dict(line.split(": ") for line in request_headers(self.token() if token is None else token))
        if content is not None:
            headers["Content-Type"] = "application/json"
        request = requests.Request(method, f"{self.url}{path}", headers=headers, data=content)
        response = requests.Session().send(request.prepare(), timeout=30)
        asked = RequestsOpenAPIRequest(request)
        if valid:
            self._document.validate_request(asked)
        self._document.validate_response(asked, RequestsOpenAPIResponse(response))
        return response


@contextmanager
def _sandbox() -> Iterator[Checked]:
    with Sandbox.start() as sandbox:
        client = (sandbox.client_id, sandbox.client_secret)
        yield Checked(sandbox.api, sandbox.token_url, client, sandbox.queue)


@contextmanager
def _nest() -> Iterator[Checked]:
    with nest(60) as running:
        client = (CLIENT_ID, CLIENT_SECRET)
        queue = lambda count: running.queue(count, "text-embedding-3-small")  # noqa: E731
        yield Checked(running.api, f"{running.oauth2}/oauth2/token", client, queue)


@pytest.fixture(scope="module", params=[_sandbox, _nest], ids=["sandbox", "NestJS"])
def api(request: pytest.FixtureRequest) -> Iterator[Checked]:
    with request.param() as running:
        yield running


def result(task_id: str, failure: Failure | None = None) -> bytes:
    return body(samples.result(task_id, failure=failure))


def test_the_version_is_that_of_the_service() -> None:
    assert DOCUMENT["info"]["version"] == __version__
    assert __version__ in USER_AGENT


def test_a_page_of_pending_tasks_is_as_documented(api: Checked) -> None:
    queued = api.queue(3)
    response = api.send("GET", "/api/ai-tasks/pending?limit=100")
    assert response.status_code == 200
    assert {task["_id"] for task in response.json()} >= set(queued)


def test_a_vector_and_a_failure_are_accepted_as_documented(api: Checked) -> None:
    first, second = api.queue(2)
    assert api.send("PATCH", f"/api/ai-tasks/{first}", result(first)).status_code == 200
    failed = result(second, Failure("text_too_long", "the text has 9000 tokens"))
    assert api.send("PATCH", f"/api/ai-tasks/{second}", failed).status_code == 200


def test_a_claimed_task_is_listed_as_documented(api: Checked) -> None:
    (claimed,) = api.queue(1)
    assert api.send("PATCH", f"/api/ai-tasks/{claimed}", CLAIM).status_code == 200
    listed = api.send("GET", "/api/ai-tasks?state=in_progress").json()
    assert claimed in {task["_id"] for task in listed}


def test_a_request_without_a_valid_token_is_refused_as_documented(api: Checked) -> None:
    (queued,) = api.queue(1)
    assert api.send("GET", "/api/ai-tasks/pending", token="nonsense").status_code == 401
    assert api.send("PATCH", f"/api/ai-tasks/{queued}", result(queued), token="nonsense").status_code == 401


def test_other_refusals_are_as_documented(api: Checked) -> None:
    (queued,) = api.queue(1)
    assert api.send("PATCH", f"/api/ai-tasks/{UNKNOWN_ID}", result(UNKNOWN_ID)).status_code == 404
    assert api.send("PATCH", f"/api/ai-tasks/{queued}", b'{"state": "odd"}', valid=False).status_code == 400
    large = b'{"state":"succeeded","result":[' + b",".join([b"0.12345678"] * 10_000) + b"]}"
    assert api.send("PATCH", f"/api/ai-tasks/{queued}", large).status_code == 413


def test_a_second_claim_and_a_missing_scope_are_refused_as_documented(
    api: Checked, request: pytest.FixtureRequest
) -> None:
    if "sandbox" in request.node.name:
        pytest.skip("the sandbox accepts every scope, and any number of claims")
    (queued,) = api.queue(1)
    assert [api.send("PATCH", f"/api/ai-tasks/{queued}", CLAIM).status_code for _ in range(2)] == [200, 409]
    assert api.send("PATCH", f"/api/ai-tasks/{queued}", result(queued), token=api.token("read")).status_code == 403


@pytest.mark.parametrize(
    "content",
    [
        b'{"state": "succeeded"}',
        b'{"state": "succeeded", "result": []}',
        b'{"state": "failed", "result": {"error": "text"}}',
        b'{"state": "in_progress", "result": [1.0]}',
        b'{"state": "pending"}',
    ],
)
def test_the_document_refuses_what_the_service_never_sends(content: bytes) -> None:
    document: Any = OpenAPI.from_dict({**DOCUMENT, "servers": [{"url": "http://api"}]})
    headers = {"Authorization": "Bearer token", "Content-Type": "application/json"}
    request = requests.Request("PATCH", "http://api/api/ai-tasks/1", headers=headers, data=content)
    with pytest.raises(OpenAPIError):
        document.validate_request(RequestsOpenAPIRequest(request))
