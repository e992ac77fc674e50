"""How a PATCH of a task ended, as the edge tells it to those who decide what follows."""

from __future__ import annotations

from typing import NamedTuple


class ApiResponse(NamedTuple):
    """The API's answer to one PATCH, or why there was none."""

    task_id: str
    status: int
    """0 when there was no answer."""
    error: str
    """In words; empty when there was an answer."""
    retry_after: float
    """Seconds; 0 if the answer asks for nothing."""
    fingerprint: str
    """Of the token that was shown."""


class ApiResponses(NamedTuple):
    """Event: PATCHes that ended."""

    answers: list[ApiResponse]


def in_words(answer: ApiResponse) -> str:
    """Say what the API answered, and what a person can do about it where it is no outage."""
    if answer.error:
        return answer.error
    return f"PATCH answered {answer.status}{hint(answer.status)}"


def hint(status: int) -> str:
    """What a status of the API asks a person to look at; empty for the others."""
    if 300 <= status < 400:
        return " (a redirect, which is not followed: set API_BASE_URL to where the API really is)"
    if status == 413:
        return " (larger than the API takes: raise its limit for JSON bodies)"
    return ""
