"""Whether the API itself answered, and what it said."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.api import error_body
from common.api.error_body import ApiErrorBody

REFERENCE = {
    "requestId": "r-1",
    "statusCode": 500,
    "timestamp": "t",
    "path": "/api/ai-tasks/1",
    "message": "callback failed",
}


def read(status: int, body: object) -> ApiErrorBody:
    return error_body.read(status, body if isinstance(body, bytes) else json.dumps(body).encode())


def test_the_reference_applications_error_gives_its_message_and_its_request_id() -> None:
    found = read(500, REFERENCE)
    assert found == ApiErrorBody(True, "callback failed", "r-1")
    assert found.in_words() == ": callback failed (requestId r-1)"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"statusCode": 422, "message": "too long", "error": "Unprocessable Entity"}, "too long"),
        (
            {"statusCode": 400, "message": ["state must be valid", "result must be x"]},
            "state must be valid; result must …",
        ),
        ({"statusCode": 400, "message": {"message": "inner"}}, "inner"),
        ({"error": "Not Found"}, "Not Found"),
        ({"statusCode": 500}, ""),
    ],
)
def test_every_shape_of_a_nestjs_error_gives_its_words(body: object, message: str) -> None:
    assert read(400, body) == ApiErrorBody(True, message)


@pytest.mark.parametrize("status", [200, 302, 400, 404, 500, 502])
@pytest.mark.parametrize(
    "body", [b"<html><h1>502 Bad Gateway</h1></html>", b"404 page not found", b"upstream error", b"\xff\xfe"]
)
def test_what_is_not_json_does_not_come_from_the_api(status: int, body: bytes) -> None:
    assert not read(status, body).from_api


@pytest.mark.parametrize(("status", "from_api"), [(200, True), (204, True), (404, False), (502, False)])
def test_only_a_success_of_the_api_may_be_empty(status: int, from_api: bool) -> None:
    assert read(status, b"").from_api is from_api


def test_a_missing_route_is_told_from_a_task_that_is_gone() -> None:
    assert read(
        404, {"statusCode": 404, "message": "Cannot PATCH /x/api/ai-tasks/1", "error": "Not Found"}
    ).route_missing
    assert not read(404, {"statusCode": 404, "message": "AI task not found", "error": "Not Found"}).route_missing


def test_a_success_that_is_longer_than_what_is_read_of_it_counts() -> None:
    whole = {"_id": "1", "result": [0.5] * 40_000}
    assert read(200, whole).from_api
    assert not read(404, whole | {"x": [1] * 10_000}).from_api


def test_hostile_words_become_one_short_line() -> None:
    shown = read(400, {"message": "callback failed\n\x1b[31m\u202e" + " value must be valid" * 900}).words
    assert shown.startswith("callback failed … value must be valid value")
    assert shown.isprintable()
    assert len(shown.encode()) <= error_body.LONGEST_MESSAGE_BYTES


@pytest.mark.parametrize("named", [{"error": "Unprocessable Entity"}, {"name": "ValidationError"}])
def test_a_message_that_may_repeat_a_text_is_replaced_by_the_name_of_the_error(named: dict[str, str]) -> None:
    found = read(422, {"statusCode": 422, "message": "Zoë Müller, born 1970", **named})
    assert found.words == f"{next(iter(named.values()))}; {error_body.NOT_SHOWN}"


@pytest.mark.parametrize(
    "echo",
    [
        "CanaryPerson",
        "a text with 1 space",
        "ory_at_" + "x1" * 22,
        "é1",
        "Q2FuYXJ5UGVyc29u",
        "Anna-1970",
        "",
        5,
        ["r-1"],
    ],
)
def test_what_does_not_look_like_a_request_id_is_not_shown_as_one(echo: object) -> None:
    assert read(500, {"message": "callback failed", "requestId": echo}).in_words() == ": callback failed"


@given(st.integers(100, 599), st.binary(max_size=300))
def test_any_body_is_read(status: int, body: bytes) -> None:
    assert len(error_body.read(status, body).in_words().encode()) < 800


def test_a_part_of_the_token_is_not_shown_as_a_request_id() -> None:
    body = json.dumps({"message": "callback failed", "requestId": "531290"}).encode()
    assert error_body.read(500, body, "token-53129041").in_words() == ": callback failed"
    assert error_body.read(500, body, "another").in_words() == ": callback failed (requestId 531290)"


@pytest.mark.parametrize(
    "name", ["r-42", "req_1", "17", "0f8fad5b-d9cb-469f-a165-70867728950e", "4BF92F3577B34DA6" * 2]
)
def test_the_common_forms_of_a_request_id_are_shown(name: str) -> None:
    assert read(500, {"requestId": name}).in_words() == f" (requestId {name})"
