"""The stand-in for the token endpoint."""

import requests

from sandbox.client import Sandbox

GRANT = {"grant_type": "client_credentials"}
Credentials = tuple[str, str]


def test_a_token_is_valid_for_an_hour(sandbox: Sandbox, session: requests.Session, credentials: Credentials) -> None:
    response = session.post(sandbox.token_url, data={**GRANT, "scope": "read write"}, auth=credentials)
    assert response.status_code == 200
    content = response.json()
    assert (content["token_type"], content["scope"], content["expires_in"]) == ("bearer", "read write", 3600)
    found = session.post(f"{sandbox.oauth2}/admin/oauth2/introspect", data={"token": content["access_token"]}).json()
    assert (found["active"], found["scope"], found["client_id"]) == (True, "read write", sandbox.client_id)


def test_credentials_must_be_encoded_before_base64(sandbox: Sandbox, session: requests.Session) -> None:
    response = session.post(sandbox.token_url, data=GRANT, auth=(sandbox.client_id, sandbox.client_secret))
    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")


def test_a_client_can_use_only_its_registered_method(
    sandbox: Sandbox, session: requests.Session, credentials: Credentials
) -> None:
    posted = {**GRANT, "client_id": sandbox.client_id, "client_secret": sandbox.client_secret}
    assert session.post(sandbox.token_url, data=posted).json()["error"] == "invalid_client"
    sandbox.settings(oauth2={"auth_methods": ["client_secret_post"]})
    assert session.post(sandbox.token_url, data=posted).status_code == 200
    assert session.post(sandbox.token_url, data=GRANT, auth=credentials).status_code == 401


def test_scope_audience_and_grant_are_checked(
    sandbox: Sandbox, session: requests.Session, credentials: Credentials
) -> None:
    def refusal(**fields: str) -> tuple[int, str | None]:
        response = session.post(sandbox.token_url, data={**GRANT, **fields}, auth=credentials)
        return response.status_code, response.json().get("error")

    assert refusal(scope="read admin") == (400, "invalid_scope")
    assert refusal(grant_type="password") == (400, "unsupported_grant_type")
    assert refusal(audience="https://api.example") == (200, None)
    sandbox.settings(oauth2={"audiences": ["https://other.example"]})
    assert refusal(audience="https://api.example") == (400, "invalid_request")


def test_expires_in_may_be_missing(sandbox: Sandbox, session: requests.Session, credentials: Credentials) -> None:
    sandbox.settings(oauth2={"omit_expires_in": True})
    assert "expires_in" not in session.post(sandbox.token_url, data=GRANT, auth=credentials).json()


def test_tokens_expire(sandbox: Sandbox, session: requests.Session, credentials: Credentials) -> None:
    sandbox.settings(oauth2={"expires_in": 0.05})
    session.post(sandbox.token_url, data=GRANT, auth=credentials)
    summary = sandbox.wait_until(lambda summary: summary["oauth2"]["live"] == 0)
    assert (summary["oauth2"]["issued"], summary["oauth2"]["token_requests"]) == (1, 1)


def test_a_token_may_be_valid_only_after_some_time(
    sandbox: Sandbox, session: requests.Session, credentials: Credentials
) -> None:
    sandbox.settings(oauth2={"valid_after": 0.2})
    token = session.post(sandbox.token_url, data=GRANT, auth=credentials).json()["access_token"]
    statuses: list[int] = []
    while not statuses or statuses[-1] == 401:
        response = session.get(f"{sandbox.api}/api/ai-tasks/pending", headers={"Authorization": f"Bearer {token}"})
        statuses.append(response.status_code)
    assert statuses[0] == 401
    assert statuses[-1] == 200


def test_a_token_may_come_form_encoded_or_after_a_byte_order_mark(
    sandbox: Sandbox, session: requests.Session, credentials: Credentials
) -> None:
    sandbox.settings(oauth2={"response_form": "form"})
    response = session.post(sandbox.token_url, data=GRANT, auth=credentials)
    assert response.headers["content-type"] == "application/x-www-form-urlencoded"
    assert response.text.startswith("access_token=ory_at_")
    sandbox.settings(oauth2={"response_form": "json_with_mark"})
    content = session.post(sandbox.token_url, data=GRANT, auth=credentials).content
    assert content.startswith(b"\xef\xbb\xbf{")
    assert content.endswith(b"}\r\n")
