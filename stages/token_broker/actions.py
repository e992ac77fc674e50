"""What the token broker asks of its edge, and what it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from common.failures.errors import Permanent, Transient


class RequestToken(NamedTuple):
    """Action: request a token. `TokenIssued` or `TokenRequestFailed` follows, with the same number."""

    number: int
    """Tells the outcome of this request from that of an earlier one."""


@dataclass(frozen=True)
class TokenIssued:
    """Event: the endpoint issued a token."""

    number: int
    """The number of the request."""
    access_token: str = field(repr=False)
    """The token; it must not be shown."""
    lifetime_s: float | None
    """How long it lasts from the moment of the request; None if the endpoint does not say."""


@dataclass(frozen=True)
class TokenRequestFailed:
    """Event: the endpoint issued no token."""

    number: int
    """The number of the request."""
    error: Transient | Permanent
    """`Permanent` if only an operator can repair it."""
