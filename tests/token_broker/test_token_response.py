"""What each response of the token endpoint means."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.failures.errors import Permanent, Throttled, Transient
from stages.token_broker.token_response import REFUSALS, TEMPORARY_ERRORS, Grant, read

JSON = {"Content-Type": "application/json; charset=utf-8"}


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [
        (3600, 3600.0),
        (4.5, 4.5),
        ("3600", 3600.0),
        (0, None),
        (-5, None),
        (None, None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        (" 3600\n", 3600.0),
        ("3600.5", 3600.5),
        (1e300, 1e300),
        (True, None),
        ([], None),
        ({"a": 1}, None),
        (10**400, None),
    ],
)
def test_a_lifetime_is_a_positive_number_or_unknown(expires_in: object, life: float | None) -> None:
    assert read(200, JSON, body(access_token="t", expires_in=expires_in), 0.0) == Grant("t", life)


def test_a_lifetime_may_be_missing() -> None:
    assert read(200, {}, body(access_token="t", token_type="bearer", scope="read"), 0.0) == Grant("t", None)


_GRANT = '{"access_token": "t-1", "token_type": "bearer", "expires_in": 60, "scope": "a b", "x": [{"y": null}]}'
_FORM = "access_token=t-1&token_type=bearer&expires_in=60"
FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("application/json", _GRANT.encode()),
        ("application/json", f"\ufeff{_GRANT}".encode()),
        ("application/json", f"\ufeff\r\n {_GRANT}\r\n\0".encode()),
        ("application/json", f"\ufeff\ufeff{_GRANT}".encode()),
        ("application/json; charset=utf-16", _GRANT.encode("utf-16")),
        ("application/json; charset=utf-16", b"\xfe\xff" + _GRANT.encode("utf-16-be")),
        ("text/plain", _GRANT.encode()),
        ("text/html", _GRANT.encode()),
        ("", _GRANT.encode()),
        ("application/json", b'{"access_token": "t-1\\n", "expires_in": "60"}'),
        ("application/json", b'{"access_token": " t-1 ", "expires_in": 60.0, "error": null}'),
        (FORM, _FORM.encode()),
        ("text/plain", _FORM.encode()),
        ("application/json", _FORM.encode()),
        (FORM, f"\ufeff{_FORM}\r\n".encode()),
        (FORM, b"expires_in=60&token_type=Bearer&scope=&access_token=t%2D1%0A"),
        (FORM, b"scope=read+write&access_token=t-1&expires_in=60.0&error="),
    ],
)
def test_a_token_is_read_from_every_common_form_of_a_response(content_type: str, content: bytes) -> None:
    assert read(200, {"content-type": content_type}, content, 0.0) == Grant("t-1", 60.0)


@pytest.mark.parametrize("encoded", ["a+b/c==", "a%2Bb/c%3D%3D", "a%2bb%2fc=="])
def test_a_form_may_leave_the_characters_of_base64_as_they_are(encoded: str) -> None:
    assert read(200, {}, f"access_token={encoded}&token_type=bearer".encode(), 0.0) == Grant("a+b/c==", None)


@pytest.mark.parametrize("status", [200, 400, 403])
@pytest.mark.parametrize("content", [body(error="invalid_scope"), b"error=invalid_scope&error_description=canary\n"])
def test_an_error_body_is_read_whatever_the_status_and_the_form(status: int, content: bytes) -> None:
    with pytest.raises(Permanent) as raised:
        read(status, {}, content, 0.0)
    assert raised.value.code == "invalid_scope"


@pytest.mark.parametrize("status", [200, 400, 401])
@pytest.mark.parametrize("code", sorted(TEMPORARY_ERRORS))
def test_a_temporary_error_code_is_a_transient_error_whatever_the_status(status: int, code: str) -> None:
    with pytest.raises(Transient, match=code):
        read(status, JSON, body(error=code, error_description="canary"), 0.0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"access_token=",
        b"access_token=can%0D%0AX-Evil:1",
        b"token_type=bearer&expires_in=60",
        b'<a href="/login?access_token=canary">',
        b"see https://host/?access_token=canary&expires_in=1",
        b"access_token=canary&x=<html>",
        b"&".join([b"a=1"] * 200 + [b"access_token=canary"]),
        b'{"access_token": ["canary"]}',
        b"<html>canary</html>",
        b"[]",
        b'"canary"',
        b"null",
        b'{"access_token": 5}',
        b'{"access_token": ""}',
        b'{"access_token": "canary\\r\\nX-Evil: 1"}',
        b'{"access_token": "canary with spaces"}',
        b'{"access_token": "can',
        b"\xff\xfe canary",
        b"[" * 100_000,
    ],
)
def test_a_response_without_a_token_is_described_by_size_and_type_only(content: bytes) -> None:
    with pytest.raises(Transient) as raised:
        read(200, {"content-type": "text/html; canary"}, content, 0.0)
    shape = f"HTTP 200, {len(content)} bytes of text/html"
    assert str(raised.value) == f"the token endpoint answered without a usable access token ({shape})"


@pytest.mark.parametrize("content_type", ["canary", "<canary>/html", "text/" + "canary" * 100])
def test_an_invalid_content_type_is_not_shown(content_type: str) -> None:
    with pytest.raises(Transient) as raised:
        read(200, {"content-type": content_type}, b"", 0.0)
    assert "canary" * 20 not in str(raised.value)
    assert "<" not in str(raised.value)


@pytest.mark.parametrize("code", sorted(REFUSALS))
def test_the_error_for_a_refusal_names_the_variable_to_check(code: str) -> None:
    with pytest.raises(Permanent) as raised:
        read(400, JSON, body(error=code, error_description="canary"), 0.0)
    assert raised.value.code == code
    assert f"({code})" in str(raised.value)
    assert "OAUTH2_" in str(raised.value)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "code", "variable"),
    [
        (401, "invalid_client", "OAUTH2_CLIENT_SECRET"),
        (403, "http_403", "OAUTH2_TOKEN_URL"),
        (404, "http_404", "OAUTH2_TOKEN_URL"),
        (405, "http_405", "OAUTH2_TOKEN_URL"),
        (302, "redirect", "OAUTH2_TOKEN_URL"),
        (307, "redirect", "OAUTH2_TOKEN_URL"),
    ],
)
def test_other_refusals_are_permanent_errors_that_name_a_variable(status: int, code: str, variable: str) -> None:
    with pytest.raises(Permanent) as raised:
        read(status, {}, b"<html>", 0.0)
    assert raised.value.code == code
    assert variable in str(raised.value)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_a_temporary_status_is_a_transient_error_with_the_wait_that_the_endpoint_asks_for(status: int) -> None:
    with pytest.raises(Transient) as raised:
        read(status, JSON, body(error="invalid_client"), 0.0)
    assert not isinstance(raised.value, Throttled)
    with pytest.raises(Throttled) as throttled:
        read(status, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "17"}, b"", 0.0)
    assert throttled.value.delay == 17
    with pytest.raises(Throttled) as throttled:
        read(status, {"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT"}, b"", 20.0)
    assert throttled.value.delay == 40


def test_an_unknown_error_code_is_not_used_as_a_metric_label() -> None:
    with pytest.raises(Permanent) as raised:
        read(400, JSON, body(error="canary"), 0.0)
    assert raised.value.code == "http_400"
    assert "canary" not in str(raised.value)


_json = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=3)
_bodies = st.binary() | st.dictionaries(
    st.sampled_from(["access_token", "expires_in", "error", "x"]), _json
).map(lambda fields: json.dumps(fields).encode())  # fmt: skip


@given(st.integers(100, 999), st.dictionaries(st.text(), st.text()), _bodies)
def test_every_response_gives_a_grant_or_a_transient_or_permanent_error(
    status: int, headers: dict[str, str], content: bytes
) -> None:
    try:
        grant = read(status, headers, content, 0.0)
    except (Transient, Permanent):
        return
    assert grant.access_token.isascii()
    assert grant.lifetime_s is None or grant.lifetime_s > 0
