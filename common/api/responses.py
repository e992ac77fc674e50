"""How the PATCH of a task ended: the events that the edge gives to the states."""

from __future__ import annotations

from typing import NamedTuple

from common.api.status import hint


class ApiResponse(NamedTuple):
    """The API's response to one PATCH, or why there is none."""

    task_id: str
    status: int
    """The HTTP status; 0 if there was no response."""
    error: str
    """Why there was no response; empty if there was one."""
    retry_after_s: float
    """The seconds that the response asks to wait; 0 if it does not ask."""
    fingerprint: str
    """Fingerprint of the token that was sent."""


class ApiResponses(NamedTuple):
    """Event: these PATCHes have ended."""

    responses: list[ApiResponse]


def in_words(response: ApiResponse) -> str:
    """Describe the response, with the remedy where an operator can do something."""
    if response.error:
        return response.error
    return f"PATCH answered {response.status}{hint(response.status)}"
