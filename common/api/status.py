"""The meaning of an HTTP status of the NestJS API: the only table, for GET, claim and PATCH (design section 6)."""

from __future__ import annotations

from enum import Enum


class Meaning(Enum):
    """What a status means. What to do about it is decided by the stage that sent the request."""

    OK = "ok"
    """2xx: the request was carried out."""
    UNAVAILABLE = "unavailable"
    """No response, 1xx, 3xx, 408, 425, 429, 5xx: the API cannot do it now. Redirects are not followed."""
    TOKEN_REFUSED = "token_refused"  # noqa: S105
    """401, 403: the API refused the token or this request, or its own check of tokens is down (NestJS says 403)."""
    DOUBTFUL = "doubtful"
    """400: a refusal, or the API's callback failed after it had stored the state. In that case a resend repairs it."""
    GONE = "gone"
    """404: the API does not have this task any more."""
    CONFLICT = "conflict"
    """409: the task is not in the state that the request assumes."""
    REFUSED = "refused"
    """Any other 4xx: the API will refuse every resend too."""


_MEANINGS = {
    400: Meaning.DOUBTFUL,
    401: Meaning.TOKEN_REFUSED,
    403: Meaning.TOKEN_REFUSED,
    404: Meaning.GONE,
    408: Meaning.UNAVAILABLE,
    409: Meaning.CONFLICT,
    425: Meaning.UNAVAILABLE,
    429: Meaning.UNAVAILABLE,
}


def meaning(status: int) -> Meaning:
    """Classify a status; 0 means that there was no response."""
    if 200 <= status < 300:
        return Meaning.OK
    if status < 400 or status >= 500:
        return Meaning.UNAVAILABLE
    return _MEANINGS.get(status, Meaning.REFUSED)


def is_throttle(status: int) -> bool:
    """Whether a `Retry-After` with this status applies to the whole endpoint, not only to this request."""
    return status in {408, 425, 429} or status >= 500


def hint(status: int) -> str:
    """What an operator should check after this status, to append to an error text; empty if there is nothing."""
    if 300 <= status < 400:
        return " (a redirect, which is not followed: set API_BASE_URL to the API's final address)"
    if status == 413:
        return " (the result is larger than the API accepts: raise the API's limit for JSON bodies)"
    return ""
