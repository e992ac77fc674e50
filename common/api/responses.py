"""How the PATCH of a task ended: the events that the edge gives to the states."""

from __future__ import annotations

from typing import NamedTuple

from common.api.status import Meaning, hint, meaning


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
    from_api: bool = True
    """Whether the API itself answered; False if the body shows that a proxy or a login page did."""
    message: str = ""
    """What the body says, in words to append to a description; empty if it says nothing."""
    route_missing: bool = False
    """404 because the API does not have this route at all: no task is gone."""
    took_s: float | None = None
    """From the start of the request to its end; None if the edge did not measure it."""


class ApiResponses(NamedTuple):
    """Event: these PATCHes have ended."""

    responses: list[ApiResponse]


_ENDS_A_TASK = frozenset({Meaning.OK, Meaning.GONE, Meaning.DOUBTFUL, Meaning.CONFLICT, Meaning.REFUSED})
"""Meanings that only the API itself can give to a response."""
_TOO_LARGE = 413
"""Refused by whichever server reads the body first: a proxy's limit counts like the API's."""


def meaning_of(response: ApiResponse) -> Meaning:
    """What a response means. Of its statuses, only those that come from the API itself settle or end a task."""
    found = meaning(response.status)
    if found in _ENDS_A_TASK and (response.route_missing or not response.from_api) and response.status != _TOO_LARGE:
        return Meaning.UNAVAILABLE
    return found


def in_words(response: ApiResponse, *, with_hint: bool = True) -> str:
    """Describe the response with its request id, and with the remedy where an operator can do something."""
    if response.error:
        return response.error
    remedy = hint(response.status) if with_hint else ""
    if response.route_missing:
        remedy = " (the API has no such route: check API_BASE_URL)"
    elif not response.from_api and meaning(response.status) in _ENDS_A_TASK:
        remedy += " (not in the API's own JSON: a proxy or another server answered)"
    return f"PATCH answered {response.status}{remedy}{response.message}"
