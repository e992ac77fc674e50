"""What each HTTP status of the API means: every status has exactly one meaning, the same for GET, claim and PATCH."""

from __future__ import annotations

import pytest

from common.api.responses import ApiResponse, in_words, meaning_of
from common.api.status import Meaning, hint, is_throttle, meaning


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0, Meaning.UNAVAILABLE),
        (100, Meaning.UNAVAILABLE),
        (103, Meaning.UNAVAILABLE),
        (199, Meaning.UNAVAILABLE),
        (200, Meaning.OK),
        (201, Meaning.OK),
        (204, Meaning.OK),
        (299, Meaning.OK),
        (300, Meaning.UNAVAILABLE),
        (302, Meaning.UNAVAILABLE),
        (308, Meaning.UNAVAILABLE),
        (399, Meaning.UNAVAILABLE),
        (400, Meaning.DOUBTFUL),
        (401, Meaning.TOKEN_REFUSED),
        (402, Meaning.REFUSED),
        (403, Meaning.TOKEN_REFUSED),
        (404, Meaning.GONE),
        (405, Meaning.REFUSED),
        (408, Meaning.UNAVAILABLE),
        (409, Meaning.CONFLICT),
        (410, Meaning.REFUSED),
        (413, Meaning.REFUSED),
        (418, Meaning.REFUSED),
        (422, Meaning.REFUSED),
        (425, Meaning.UNAVAILABLE),
        (429, Meaning.UNAVAILABLE),
        (499, Meaning.REFUSED),
        (500, Meaning.UNAVAILABLE),
        (503, Meaning.UNAVAILABLE),
        (599, Meaning.UNAVAILABLE),
        (999, Meaning.UNAVAILABLE),
    ],
)
def test_a_status_has_the_meaning_of_the_design(status: int, expected: Meaning) -> None:
    assert meaning(status) is expected


def test_every_status_has_a_meaning_and_every_meaning_a_status() -> None:
    assert {meaning(status) for status in range(1000)} == set(Meaning)


def test_only_2xx_counts_as_success() -> None:
    assert [status for status in range(1000) if meaning(status) is Meaning.OK] == list(range(200, 300))


def test_an_outage_is_never_a_refusal() -> None:
    """A refused result becomes a dead letter at once. An outage must not do that, however the API reports it."""
    outages = [0, 301, 302, 307, 408, 425, 429, *range(500, 600)]
    assert {meaning(status) for status in outages} == {Meaning.UNAVAILABLE}


def test_retry_after_applies_to_the_whole_endpoint_where_the_api_throttles_or_is_down() -> None:
    assert [status for status in range(600) if is_throttle(status)] == [408, 425, 429, *range(500, 600)]


def test_a_throttle_is_always_an_outage() -> None:
    assert all(meaning(status) is Meaning.UNAVAILABLE for status in range(1000) if is_throttle(status))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_names_the_setting_to_change(status: int) -> None:
    assert "set API_BASE_URL" in hint(status)


def test_a_result_that_is_too_large_names_the_limit_of_the_api() -> None:
    assert "raise the API's limit for JSON bodies" in hint(413)


@pytest.mark.parametrize("status", [0, 200, 400, 401, 403, 404, 409, 422, 429, 500, 503])
def test_other_statuses_need_no_hint(status: int) -> None:
    assert hint(status) == ""


def test_a_response_is_described_by_its_status_and_hint() -> None:
    assert in_words(ApiResponse("a", 503, "", 0.0, "token")) == "PATCH answered 503"
    assert in_words(ApiResponse("a", 413, "", 0.0, "token")) == f"PATCH answered 413{hint(413)}"


def test_a_request_without_a_response_is_described_by_its_error() -> None:
    assert in_words(ApiResponse("a", 0, "PATCH /x: the connection failed", 0.0, "token")).endswith("connection failed")


def foreign(status: int) -> ApiResponse:
    """A response whose body is not the API's."""
    return ApiResponse("a", status, "", 0.0, "token", from_api=False)


@pytest.mark.parametrize("status", [200, 201, 204, 400, 404, 405, 409, 410, 422, 451])
def test_a_response_that_is_not_the_apis_is_an_outage(status: int) -> None:
    assert meaning_of(foreign(status)) is Meaning.UNAVAILABLE
    assert "a proxy or another server answered" in in_words(foreign(status))


@pytest.mark.parametrize("status", [0, 302, 401, 403, 413, 429, 500, 502, 503])
def test_other_responses_of_a_proxy_mean_what_their_status_means(status: int) -> None:
    assert meaning_of(foreign(status)) is meaning(status)


def test_a_missing_route_of_the_api_is_no_missing_task() -> None:
    response = ApiResponse("a", 404, "", 0.0, "token", True, ": Cannot PATCH /x", route_missing=True)
    assert meaning_of(response) is Meaning.UNAVAILABLE
    assert in_words(response) == "PATCH answered 404 (the API has no such route: check API_BASE_URL): Cannot PATCH /x"


@pytest.mark.parametrize("status", [0, 200, 302, 400, 401, 403, 404, 409, 413, 422, 500])
def test_the_apis_own_responses_mean_what_their_status_means(status: int) -> None:
    assert meaning_of(ApiResponse("a", status, "", 0.0, "token")) is meaning(status)


def test_a_response_is_described_with_the_apis_words() -> None:
    response = ApiResponse("a", 422, "", 0.0, "token", True, ": too long (requestId r-1)")
    assert in_words(response) == "PATCH answered 422: too long (requestId r-1)"
