"""How the two edges interpret the responses of the API."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import pytest

from common.api.responses import in_words, meaning_of
from common.api.status import Meaning, meaning
from common.failures.errors import Throttled, Transient
from common.failures.wait_hints import LONGEST_WAIT_S
from sandbox.client import Sandbox
from tests.edges.api import Api, api, failure, page

LATER = Meaning.UNAVAILABLE
MEANINGS = {
    400: Meaning.DOUBTFUL,
    401: Meaning.TOKEN_REFUSED,
    403: Meaning.TOKEN_REFUSED,
    404: Meaning.GONE,
    405: Meaning.REFUSED,
    408: LATER,
    409: Meaning.CONFLICT,
    413: Meaning.REFUSED,
    422: Meaning.REFUSED,
    425: LATER,
    429: LATER,
    301: LATER,
    302: LATER,
    307: LATER,
    500: LATER,
    502: LATER,
    503: LATER,
    504: LATER,
    507: LATER,
    520: LATER,
}


@pytest.mark.parametrize(("status", "expected"), MEANINGS.items())
def test_every_status_means_the_same_for_every_kind_of_body(
    sandbox: Sandbox, edges: Api, status: int, expected: Meaning
) -> None:
    (task_id,) = sandbox.queue(1)
    for body in ("", '{"statusCode": 1, "message": "no"}', "<html>a proxy's page</html>", "x" * 200_000):
        sandbox.fault("api", status=status, body=body, times=2)
        response = edges.patch_one(task_id)
        assert (response.status, meaning(response.status)) == (status, expected)
        failed = failure(edges.get())
        assert isinstance(failed.error, Transient)
        assert str(status) in str(failed.error)
        assert failed.rejected == ("fingerprint" if status in {401, 403} else "")
    assert edges.patch_one(task_id).status == 200
    assert [candidate.task.id for candidate in page(edges.get()).candidates] == []


API_ERROR = '{"statusCode": 422, "message": ["result must be an array", "Zoë\\n"], "requestId": "r-7"}'


def test_a_patch_response_has_the_apis_words_and_the_id_in_its_log(sandbox: Sandbox, edges: Api) -> None:
    (task_id,) = sandbox.queue(1)
    sandbox.fault("api", status=422, body=API_ERROR, times=1)
    assert in_words(edges.patch_one(task_id)) == "PATCH answered 422: result must be an array; … (requestId r-7)"


@pytest.mark.parametrize("body", ["<html>a proxy's page</html>", "404 page not found", "x" * 200_000])
@pytest.mark.parametrize("status", [200, 404, 422])
def test_a_response_that_is_not_the_apis_json_is_an_outage(
    sandbox: Sandbox, edges: Api, status: int, body: str
) -> None:
    (task_id,) = sandbox.queue(1)
    sandbox.fault("api", status=status, body=body, headers={"Content-Type": "text/html"}, times=1)
    response = edges.patch_one(task_id)
    assert (response.status, meaning_of(response)) == (status, LATER)
    assert sandbox.task(task_id)["state"] == "pending"


def test_a_404_settles_only_in_the_apis_own_words(sandbox: Sandbox, edges: Api) -> None:
    """A proxy's 404 is empty, and the API's 404 for an unknown route is not about the task."""
    (task_id,) = sandbox.queue(1)
    assert meaning_of(edges.patch_one("0" * 24)) is Meaning.GONE
    for body in ("", '{"statusCode": 404, "message": "Cannot PATCH /api/ai-tasks/1", "error": "Not Found"}'):
        sandbox.fault("api", status=404, body=body, times=1)
        assert meaning_of(edges.patch_one(task_id)) is LATER


@pytest.mark.parametrize("body", ["", "{}", '{"result": [' + "0.1, " * 50_000 + "0.1]}"])
def test_a_success_of_the_api_may_be_empty_or_long(sandbox: Sandbox, edges: Api, body: str) -> None:
    (task_id,) = sandbox.queue(1)
    sandbox.fault("api", status=200, body=body, times=1)
    assert meaning_of(edges.patch_one(task_id)) is Meaning.OK


def dated(value: str) -> str:
    """Replace `a date in 90 s` by such a date from now, because parameters are computed long before the test runs."""
    if not value.startswith("a date in "):
        return value
    return formatdate(time.time() + float(value.split()[3]), usegmt=True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"Retry-After": "7"}, 7, 7),
        ({"Retry-After": "a date in 90 s"}, 1, 90),
        ({"Retry-After": "a date in -90 s"}, 0, 0),
        ({"Retry-After": "99999999"}, LONGEST_WAIT_S, LONGEST_WAIT_S),
        ({"Retry-After": "soon"}, 0, 0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "11"}, 11, 11),
        ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "11"}, 0, 0),
        ({}, 0, 0),
    ],
)
def test_both_edges_read_the_wait_that_a_response_asks_for(
    sandbox: Sandbox, edges: Api, status: int, headers: dict[str, str], low: float, high: float
) -> None:
    (task_id,) = sandbox.queue(1)
    sandbox.fault("api", status=status, headers={name: dated(value) for name, value in headers.items()})
    assert low <= edges.patch_one(task_id).retry_after_s <= high
    error = failure(edges.get()).error
    assert low <= (error.delay if isinstance(error, Throttled) else 0.0) <= high


def test_a_redirect_is_not_followed_and_the_error_names_the_setting(sandbox: Sandbox, edges: Api) -> None:
    (task_id,) = sandbox.queue(1)
    before = sandbox.summary()["api"]["requests"]
    sandbox.fault("api", status=302, headers={"Location": f"{sandbox.api}/api/ai-tasks/pending"}, times=2)
    assert edges.patch_one(task_id).status == 302
    assert "set API_BASE_URL" in str(failure(edges.get()).error)
    assert sandbox.summary()["api"]["requests"] == before + 2


def test_a_body_over_the_limit_is_refused_with_413_even_with_a_wrong_token(sandbox: Sandbox, token: Any) -> None:
    (task_id,) = sandbox.queue(1)
    with api(sandbox.api, token, dimensions=20_000) as edges:
        assert edges.patch_one(task_id).status == 413
        sandbox.revoke()
        assert edges.patch_one(task_id).status == 413


def test_a_result_of_the_largest_model_is_under_the_default_limit(sandbox: Sandbox, token: Any) -> None:
    (task_id,) = sandbox.queue(1)
    with api(sandbox.api, token, dimensions=3072) as edges:
        assert edges.patch_one(task_id).status == 200


@pytest.mark.parametrize("odd", ["a/../b", "a?b=c", "a#b", "a b", "ä", "%41", "a\r\nX: y", "." * 300])
def test_an_unusual_id_stays_one_segment_of_the_path(sandbox: Sandbox, edges: Api, odd: str) -> None:
    assert edges.patch_one(odd).status == 400  # not an ObjectId, and no other route
    assert sandbox.summary()["api"]["patches"] == 1
