"""How a PATCH of a task ended, as the edge tells it to those who decide what follows."""

from __future__ import annotations

from typing import NamedTuple

from common.api.status import hint


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
