"""What a response of the token endpoint means: a grant, or one of the project's errors, without its content.

See RFC 6749, 5.1 and 5.2; Ory Hydra follows it. Other servers add a byte order mark or white space, or answer
form-encoded (`access_token=…&expires_in=…`), with any content type: all of this is read. Nothing of a body is
repeated in an error, because it may contain the token or the secret: a response is described by its status, size and
content type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import msgspec

from common.failures.errors import Permanent, Throttled, Transient
from common.failures.retry import retry_after

REFUSALS = {
    "invalid_client": "the token endpoint does not know this client or its secret: check OAUTH2_CLIENT_ID, "
    "OAUTH2_CLIENT_SECRET and, if they are right, OAUTH2_AUTH_METHOD (invalid_client)",
    "invalid_scope": "this client may not ask for these scopes: check OAUTH2_SCOPE against what is registered for it "
    "(invalid_scope)",
    "unauthorized_client": "this client may not use the client credentials grant: allow it where OAUTH2_CLIENT_ID is "
    "registered (unauthorized_client)",
    "unsupported_grant_type": "the token endpoint does not offer the client credentials grant: check OAUTH2_TOKEN_URL "
    "(unsupported_grant_type)",
    "invalid_request": "the token endpoint says that the request is malformed: check OAUTH2_AUDIENCE, OAUTH2_SCOPE and "
    "OAUTH2_AUTH_METHOD (invalid_request)",
    "invalid_grant": "the token endpoint refuses the grant: check OAUTH2_CLIENT_ID and OAUTH2_AUTH_METHOD "
    "(invalid_grant)",
    "invalid_target": "the token endpoint refuses the audience: check OAUTH2_AUDIENCE (invalid_target)",
    "access_denied": "the token endpoint denies this client access: check OAUTH2_CLIENT_ID (access_denied)",
}
"""OAuth2 error codes that no retry repairs → what an operator can do about them."""
TEMPORARY_ERRORS = frozenset({"server_error", "slow_down", "temporarily_unavailable"})
"""OAuth2 error codes for which a retry helps, whatever the status."""
TEMPORARY_STATUSES = frozenset({408, 425, 429})
"""Statuses below 500 for which a retry helps."""
LARGEST_FORM_FIELDS = 100
"""A form-encoded response with more fields is not read."""

_BYTE_ORDER_MARK = "\ufeff"
_FORM = re.compile(r"[\w.-]+=[^\s<>{}]*")
"""A form-encoded body, in contrast to a page with an address in it."""
_VISIBLE = re.compile(r"[\x21-\x7e]+")
"""The characters that a header may contain; the b64token of RFC 6750 is a subset."""


class Grant(NamedTuple):
    """What the endpoint issued; the token must not be shown."""

    access_token: str
    """The token itself."""
    lifetime_s: float | None
    """Its lifetime from the moment of the request; None if the response has no usable `expires_in`."""


class _TokenFields(msgspec.Struct):
    """The fields of a response that are read. Each may have any type until it is checked."""

    access_token: Any = None
    expires_in: Any = None
    error: Any = None


def read(status: int, headers: Mapping[str, str], body: bytes, now_wall: float) -> Grant:
    """Read one response; raises `Transient`, `Throttled` or `Permanent` if it contains no token."""
    shape = f"HTTP {status}, {len(body)} bytes of {_content_type(headers)}"
    if status >= 500 or status in TEMPORARY_STATUSES:
        message = f"the token endpoint cannot answer now ({shape})"
        delay = retry_after(headers, now_wall)
        raise Transient(message) if delay is None else Throttled(message, delay)
    if 300 <= status < 400:
        message = f"the token endpoint redirects (HTTP {status}), and the secret is not sent to another address: set"
        raise Permanent(f"{message} OAUTH2_TOKEN_URL to the final address", "redirect")
    fields = _read_fields(body)
    if isinstance(fields.error, str) and fields.error in TEMPORARY_ERRORS:
        raise Transient(f"the token endpoint cannot answer now ({fields.error})")
    if isinstance(fields.error, str) and fields.error in REFUSALS:
        raise Permanent(REFUSALS[fields.error], fields.error)
    if status == 401:
        raise Permanent(REFUSALS["invalid_client"], "invalid_client")
    if status >= 400:
        raise Permanent(f"the token endpoint refuses the request ({shape}): check OAUTH2_TOKEN_URL", f"http_{status}")
    access_token = fields.access_token.strip() if isinstance(fields.access_token, str) else ""
    if not _VISIBLE.fullmatch(access_token):
        raise Transient(f"the token endpoint answered without a usable access token ({shape})")
    return Grant(access_token, _lifetime_s(fields.expires_in))


def _read_fields(body: bytes) -> _TokenFields:
    """Read a body as JSON, or else as a form; all fields are missing if it is neither."""
    encoding = "utf-16" if body[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    text = body.decode(encoding, errors="replace").strip(_BYTE_ORDER_MARK + " \t\r\n\0")
    try:
        return msgspec.json.decode(text, type=_TokenFields)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    try:
        found = parse_qs(text, max_num_fields=LARGEST_FORM_FIELDS) if _FORM.fullmatch(text) else {}
    except ValueError:
        return _TokenFields()
    first = {name: values[0] for name, values in found.items()}
    # a token has no spaces: what reads as one is a plus sign that the server did not encode
    access_token = first.get("access_token", "").strip().replace(" ", "+")
    return _TokenFields(access_token, first.get("expires_in"), first.get("error"))


def _lifetime_s(expires_in: object) -> float | None:
    """Seconds, from a number or a number in a string; None if it is not a lifetime."""
    try:
        is_number = isinstance(expires_in, int | float | str) and not isinstance(expires_in, bool)
        lifetime_s = float(expires_in) if is_number else 0.0  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        return None
    return lifetime_s if math.isfinite(lifetime_s) and lifetime_s > 0 else None


def _content_type(headers: Mapping[str, str]) -> str:
    """The media type, if it looks like one."""
    found = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    media = re.match(r"[A-Za-z0-9.+-]{1,40}/[A-Za-z0-9.+-]{1,40}", found)
    return media.group() if media else "unknown type"
