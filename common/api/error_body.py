"""What the NestJS API says in the body of a response, and whether it is the API that speaks.

Proxies, login pages and load balancers answer in the API's place, with any status: 200 with an HTML page, 404 as plain
text. The API itself always answers with JSON, or with an empty body where it has nothing to say. NestJS's own errors
are `{"statusCode", "message", "error"}`; the reference application's are `{"requestId", "statusCode", "timestamp",
"path", "message"}`.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from common.api import error_words

LARGEST_READ_BYTES = 64 * 1024
"""An error body is short; of a longer one only this much is looked at."""
LONGEST_MESSAGE_BYTES = 300
"""What is shown, logged and stored of the API's words."""
NOT_SHOWN = "the API's message is not shown, because it may repeat a text"
_REQUEST_ID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}"
    r"|(?:(?:r|req|request|id)[-_:.]?)?[0-9]{1,10}",
    re.IGNORECASE,
)
"""The common forms of a request id. Any other could be a part of a text, perhaps encoded."""


class ApiErrorBody(NamedTuple):
    """What a response body says."""

    from_api: bool
    """Whether the API itself answered: its body is JSON, or empty."""
    words: str = ""
    """What may be shown of the API's words: one line, at most `LONGEST_MESSAGE_BYTES` (`error_words`)."""
    request_id: str = ""
    """The id by which the API's own log knows this request."""
    route_missing: bool = False
    """404 because the API has no such route at all: API_BASE_URL is wrong, and no task is gone."""

    def in_words(self) -> str:
        """The words and the request id, to append to a description; the API's own log has the whole message."""
        words = f": {self.words}" if self.words else ""
        return f"{words} (requestId {self.request_id})" if self.request_id else words


_SUCCESS = ApiErrorBody(from_api=True)
_JSON_BEGINS = (b"{", b"[")


def read(status: int, body: bytes, access_token: str = "") -> ApiErrorBody:
    """Read the body of a response to a request with this token; accepts any bytes."""
    text = body[:LARGEST_READ_BYTES].strip()
    if not text:
        # NestJS answers an error with a body always; only a success may be empty
        return ApiErrorBody(from_api=200 <= status < 300)
    if 200 <= status < 300 and text[:1] in _JSON_BEGINS:
        return _SUCCESS  # not decoded: it may repeat the vector, and decoding that costs more than the PATCH
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ApiErrorBody(from_api=False)
    if not isinstance(value, dict):
        return ApiErrorBody(from_api=status < 400)
    message = _message(value)
    route_missing = status == 404 and message.startswith("Cannot ")
    request_id = value.get("requestId")
    is_id = isinstance(request_id, str) and _REQUEST_ID.fullmatch(request_id) and request_id not in access_token
    return ApiErrorBody(True, _words(message, value), str(request_id) if is_id else "", route_missing)


def _message(value: dict[str, Any]) -> str:
    """The words of an error: `message` is a string, a list of strings (class-validator) or an object."""
    found = value.get("message", value.get("error", ""))
    if isinstance(found, dict):
        found = found.get("message", found.get("error", ""))
    if isinstance(found, list):
        return "; ".join(str(item) for item in found[:10])
    return found if isinstance(found, str) else ""


def _words(message: str, value: dict[str, Any]) -> str:
    """What may be shown of a message; otherwise the error's name, and why there is no more."""
    if shown := error_words.shown(message):
        return one_line(shown)
    names = (value.get("error"), value.get("name"), value.get("code"))
    name = next((shown for name in names if isinstance(name, str) and (shown := error_words.shown(name))), "")
    return one_line("; ".join(part for part in (name, NOT_SHOWN if message else "") if part))


def one_line(text: str) -> str:
    """Make text of the API fit to be shown: printable, one line, at most `LONGEST_MESSAGE_BYTES` of UTF-8."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:2000])
    encoded = shown.encode(errors="replace")
    if len(encoded) <= LONGEST_MESSAGE_BYTES:
        return encoded.decode()
    return encoded[: LONGEST_MESSAGE_BYTES - 3].decode(errors="ignore") + "…"
