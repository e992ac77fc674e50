"""The stand-in for the NestJS application."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from sandbox.client import Sandbox, SandboxError

UNAUTHORIZED = {"statusCode": 401, "message": "Unauthorized"}
SUCCESS = {"state": "succeeded", "result": [0.5, -1.5e-05, 0.25]}


def pending(sandbox: Sandbox, session: requests.Session, query: str = "") -> list[Any]:
    response = session.get(f"{sandbox.api}/api/ai-tasks/pending{query}")
    assert response.status_code == 200
    page: list[Any] = response.json()
    return page


def patch(sandbox: Sandbox, session: requests.Session, task_id: str, body: Any = None) -> requests.Response:
    return session.patch(f"{sandbox.api}/api/ai-tasks/{task_id}", json=SUCCESS if body is None else body)


def test_a_task_has_the_format_of_the_reference_api(sandbox: Sandbox, signed_in: requests.Session) -> None:
    sandbox.queue(1, text="hello {n}", model="text-embedding-3-large")
    (task,) = pending(sandbox, signed_in)
    assert re.fullmatch("[0-9a-f]{24}", task["_id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", task["createdAt"])
    assert task["type"] == "text_embedding"
    assert task["state"] == "pending"
    assert task["content"] == {"text": "hello 0", "model": "text-embedding-3-large"}
    assert task["callbackRoute"] == "verification_update_embedding"
    assert task["callbackParams"]["field"] == "embedding"
    assert task["__v"] == 0


@pytest.mark.parametrize("authorization", [None, "Bearer unknown", "Basic abc"])
def test_requests_without_a_valid_token_are_refused(
    sandbox: Sandbox, session: requests.Session, authorization: str | None
) -> None:
    (task_id,) = sandbox.queue(1)
    headers = {} if authorization is None else {"Authorization": authorization}
    for response in (
        session.get(f"{sandbox.api}/api/ai-tasks/pending", headers=headers),
        session.patch(f"{sandbox.api}/api/ai-tasks/{task_id}", json=SUCCESS, headers=headers),
    ):
        assert (response.status_code, response.json()) == (401, UNAUTHORIZED)


def test_a_revoked_token_is_refused(sandbox: Sandbox, signed_in: requests.Session) -> None:
    assert sandbox.revoke() == 1
    assert signed_in.get(f"{sandbox.api}/api/ai-tasks/pending").status_code == 401


def test_a_page_obeys_limit_and_page_cap(sandbox: Sandbox, signed_in: requests.Session) -> None:
    ids = sandbox.queue(20)
    assert [task["_id"] for task in pending(sandbox, signed_in, "?limit=5")] == ids[:5]
    assert len(pending(sandbox, signed_in)) == 20
    sandbox.settings(api={"honour_limit": False})
    assert len(pending(sandbox, signed_in, "?limit=5")) == 20
    sandbox.settings(api={"page_cap": 10})
    assert len(pending(sandbox, signed_in, "?limit=15")) == 10


def test_a_page_has_the_configured_order(sandbox: Sandbox, signed_in: requests.Session) -> None:
    days = [f"2026-01-{day:02}T00:00:00.000Z" for day in (3, 1, 2, 5, 4, 9, 8, 7, 6)]
    sandbox.queue_tasks({"text": day, "createdAt": day} for day in days)

    def order() -> list[str]:
        return [task["createdAt"] for task in pending(sandbox, signed_in)]

    assert order() == sorted(days)
    sandbox.settings(api={"order": "newest"})
    assert order() == sorted(days, reverse=True)
    sandbox.settings(api={"order": "shuffled"})
    assert order() != sorted(days)
    assert sorted(order()) == sorted(days)


def test_a_page_can_contain_any_json(sandbox: Sandbox, signed_in: requests.Session) -> None:
    elements: list[Any] = [None, 7, {"_id": "6" * 24}, {"type": "text_embedding"}, []]
    sandbox.queue_raw(elements)
    assert pending(sandbox, signed_in) == elements
    assert patch(sandbox, signed_in, "6" * 24).status_code == 200
    assert len(pending(sandbox, signed_in)) == 4


def test_an_id_belongs_to_one_task(sandbox: Sandbox, signed_in: requests.Session) -> None:
    task = {"_id": "5" * 24, "text": "x"}
    sandbox.queue_tasks([task])
    with pytest.raises(SandboxError, match="already"):
        sandbox.queue_tasks([task])
    sandbox.queue_raw([task])  # but a page may contain an id twice
    assert [shown["_id"] for shown in pending(sandbox, signed_in)] == ["5" * 24] * 2


def test_a_result_settles_its_task(sandbox: Sandbox, signed_in: requests.Session) -> None:
    first, second = sandbox.queue(2)
    response = patch(sandbox, signed_in, first)
    assert response.status_code == 200
    assert response.json() == {"_id": first, "type": "text_embedding", "state": "succeeded", "__v": 0}
    assert [task["_id"] for task in pending(sandbox, signed_in)] == [second]
    (done,) = signed_in.get(f"{sandbox.api}/api/ai-tasks?state=succeeded").json()
    assert (done["_id"], done["state"]) == (first, "succeeded")
    assert sandbox.summary()["api"]["tasks"] == {"pending": 1, "succeeded": 1}


def test_every_patch_is_recorded(sandbox: Sandbox, signed_in: requests.Session) -> None:
    (task_id,) = sandbox.queue(1)
    failure = {"state": "failed", "result": {"error": {"code": "too_long", "message": "9,000 tokens"}}}
    patch(sandbox, signed_in, task_id, {"state": "in_progress"})
    patch(sandbox, signed_in, task_id, {"state": "succeeded", "result": "nothing"})
    patch(sandbox, signed_in, task_id)
    patch(sandbox, signed_in, task_id, failure)
    patches = sandbox.task(task_id)["patches"]
    assert [(p["accepted"], p["status"], p.get("state")) for p in patches] == [
        (True, 200, "in_progress"), (False, 400, None), (True, 200, "succeeded"), (True, 200, "failed"),
    ]  # fmt: skip
    assert patches[2]["length"] == 3
    assert patches[3]["error_code"] == "too_long"
    assert sandbox.record() == [{"id": task_id, "state": "failed", "patches": patches}]


def test_results_accepted_twice_are_counted(sandbox: Sandbox, signed_in: requests.Session) -> None:
    same, different, requeued, once = sandbox.queue(4)
    for task_id in (same, same, same, different, requeued, once):
        patch(sandbox, signed_in, task_id)
    patch(sandbox, signed_in, different, {"state": "succeeded", "result": [1]})
    assert sandbox.requeue([requeued]) == 1
    patch(sandbox, signed_in, requeued)
    summary = sandbox.summary()["api"]
    assert summary["accepted"] == 8
    assert summary["accepted_twice"] == 2
    assert summary["digests_differ"] == 1


@pytest.mark.parametrize("check_bodies", [True, False])
def test_results_are_kept_on_request(sandbox: Sandbox, signed_in: requests.Session, check_bodies: bool) -> None:
    sandbox.settings(api={"keep_results": True, "check_bodies": check_bodies})
    (task_id,) = sandbox.queue(1)
    patch(sandbox, signed_in, task_id)
    assert sandbox.results() == {task_id: SUCCESS["result"]}


def test_unchecked_bodies_are_recorded_like_checked_ones(sandbox: Sandbox, signed_in: requests.Session) -> None:
    (task_id,) = sandbox.queue(1)
    lengths = []
    for check in (True, False):
        sandbox.settings(api={"check_bodies": check})
        url = f"{sandbox.api}/api/ai-tasks/{task_id}"
        assert signed_in.patch(url, data=b'{"state":"succeeded","result":[1,2,3,4]}').status_code == 200
        lengths.append(sandbox.task(task_id)["patches"][-1]["length"])
    assert lengths == [4, 4]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"state":"done","result":[1]}',
        b'{"state":"succeeded"}',
        b'{"state":"succeeded","result":[]}',
        b'{"state":"succeeded","result":[NaN]}',
        b'{"state":"succeeded","result":[1,null]}',
        b'{"state":"succeeded","result":["1"]}',
        b'{"state":"succeeded","result":[[1]]}',
        b'{"state":"failed","result":[1]}',
        b'{"state":"failed","result":{"error":"text"}}',
    ],
)
def test_an_invalid_body_is_refused(sandbox: Sandbox, signed_in: requests.Session, body: bytes) -> None:
    (task_id,) = sandbox.queue(1)
    response = signed_in.patch(f"{sandbox.api}/api/ai-tasks/{task_id}", data=body)
    assert response.status_code == 400
    assert response.json()["statusCode"] == 400
    assert sandbox.summary()["api"]["tasks"] == {"pending": 1}


def test_invalid_and_unknown_ids_are_refused_and_recorded(sandbox: Sandbox, signed_in: requests.Session) -> None:
    assert patch(sandbox, signed_in, "nonsense").status_code == 400
    assert patch(sandbox, signed_in, "a" * 24).status_code == 404
    assert [(entry["id"], entry["state"]) for entry in sandbox.record()] == [("nonsense", None), ("a" * 24, None)]


def test_a_large_body_is_refused_before_the_token_is_checked(sandbox: Sandbox, session: requests.Session) -> None:
    (task_id,) = sandbox.queue(1)
    response = patch(sandbox, session, task_id, {"state": "succeeded", "result": [0] * 40_000})
    assert (response.status_code, response.json()) == (413, {"statusCode": 413, "message": "request entity too large"})


def test_fifty_thousand_tasks_fit_in_one_page(sandbox: Sandbox, signed_in: requests.Session) -> None:
    response = sandbox.call("POST", "/tasks?ids=false", {"count": 50_000})
    assert response["count"] == 50_000
    assert "ids" not in response
    texts = {task["content"]["text"] for task in pending(sandbox, signed_in)}
    assert len(texts) == 50_000


# ---- load ----


def test_a_throttle_counts_each_handler_and_refuses_for_a_window_after_too_many(
    sandbox: Sandbox, signed_in: requests.Session
) -> None:
    ids = sandbox.queue(3)
    sandbox.settings(api={"throttle_limit": 2, "throttle_seconds": 60})
    assert [patch(sandbox, signed_in, task_id).status_code for task_id in ids] == [200, 200, 429]
    refused = patch(sandbox, signed_in, ids[0])
    assert refused.json() == {"statusCode": 429, "message": "ThrottlerException: Too Many Requests"}
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert len(pending(sandbox, signed_in)) == 1
    api = sandbox.summary()["api"]
    assert (api["throttled"], api["accepted"], api["patches"]) == (2, 2, 4)


def test_the_throttle_ends_with_its_window(sandbox: Sandbox, signed_in: requests.Session) -> None:
    ids = sandbox.queue(2)
    sandbox.settings(api={"throttle_limit": 1, "throttle_seconds": 0.2})
    statuses = [patch(sandbox, signed_in, task_id).status_code for task_id in ids]
    assert statuses[0] == 200
    for _ in range(1000):
        if patch(sandbox, signed_in, ids[1]).status_code == 200:
            return
    raise AssertionError("the throttle never ends")


def test_with_one_worker_patches_wait_for_each_other(sandbox: Sandbox, signed_in: requests.Session) -> None:
    ids = sandbox.queue(4)
    sandbox.settings(api={"workers": 1, "work_seconds": 0.05})
    with ThreadPoolExecutor(4) as pool:
        responses = list(pool.map(lambda task_id: patch(sandbox, signed_in, task_id), ids))
    took_s = sorted(response.elapsed.total_seconds() for response in responses)
    assert [response.status_code for response in responses] == [200] * 4
    assert took_s[-1] >= 2 * 0.05
    assert sandbox.summary()["api"]["most_patches_waiting"] > 1
