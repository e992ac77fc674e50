"""What an HTTP status of the NestJS API means, once for all who talk to it: GET, claim and PATCH (design section 6)."""

from __future__ import annotations

from enum import Enum


class Meaning(Enum):
    """What the API says with a status; what follows from it is up to the stage that asked."""

    OK = "ok"
    """2xx: done."""
    UNAVAILABLE = "unavailable"
    """No answer, 1xx, 3xx, 408, 425, 429, 5xx: it cannot do it now. Redirects are not followed."""
    TOKEN_REFUSED = "token_refused"  # noqa: S105
    """401: the same again with a new token."""
    TOKEN_DOUBTED = "token_doubted"  # noqa: S105
    """403: a refused token, or an outage of the API's own check of it."""
    DOUBTFUL = "doubtful"
    """400: perhaps the API's callback failed after the state was stored; a resend may repair it."""
    GONE = "gone"
    """404: there is no such task."""
    CONFLICT = "conflict"
    """409: the task is in another state than the request assumes."""
    REFUSED = "refused"
    """Any other 4xx: no resend will be taken."""


_MEANINGS = {
    400: Meaning.DOUBTFUL,
    401: Meaning.TOKEN_REFUSED,
    403: Meaning.TOKEN_DOUBTED,
    404: Meaning.GONE,
    408: Meaning.UNAVAILABLE,
    409: Meaning.CONFLICT,
    425: Meaning.UNAVAILABLE,
    429: Meaning.UNAVAILABLE,
}


def meaning(status: int) -> Meaning:
    """Classify a status; 0 stands for no answer at all."""
    if 200 <= status < 300:
        return Meaning.OK
    if status < 400 or status >= 500:
        return Meaning.UNAVAILABLE
    return _MEANINGS.get(status, Meaning.REFUSED)


def is_throttle(status: int) -> bool:
    """Whether a `Retry-After` on this status is about the whole endpoint rather than this one request."""
    return status in {408, 425, 429} or status >= 500


def hint(status: int) -> str:
    """What a person should look at when the API answers so; empty where a status needs no hint."""
    if 300 <= status < 400:
        return " (a redirect, which is not followed: set API_BASE_URL to where the API really is)"
    if status == 413:
        return " (larger than the API takes: raise its limit for JSON bodies)"
    return ""
