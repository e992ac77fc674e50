"""What an answer of the API means for the result that was sent (the design's section 6)."""

from __future__ import annotations

from enum import Enum


class Verdict(Enum):
    """What an answer means for the result that was sent."""

    ACCEPTED = "accepted"
    """The API has it."""
    GONE = "gone"
    """404: the task does not exist any more; there is nothing left to do for it."""
    TOKEN = "token"  # noqa: S105
    """401: the token was refused; the same again with a new one."""
    LATER = "later"
    """The API cannot take anything now: outage, overload, a refused token that a new one may mend."""
    DOUBTFUL = "doubtful"
    """400: perhaps the API's callback failed after the state was stored, and a resend mends it."""
    REFUSED = "refused"
    """No resend mends it: a dead letter."""


VERDICTS = {
    401: Verdict.TOKEN,
    403: Verdict.LATER,  # may be a hiccup of the API's own check of the token
    404: Verdict.GONE,
    400: Verdict.DOUBTFUL,
    408: Verdict.LATER,
    425: Verdict.LATER,
    429: Verdict.LATER,
}


def verdict(status: int) -> Verdict:
    """Judge an HTTP status; 0 is no answer at all. Redirects are not followed: they tell of a wrong API_BASE_URL."""
    if 200 <= status < 300:
        return Verdict.ACCEPTED
    if status < 400 or status >= 500:
        return Verdict.LATER
    return VERDICTS.get(status, Verdict.REFUSED)
