"""The settings that the publisher's decisions depend on."""

from __future__ import annotations

from typing import NamedTuple

from common.api.patch_queue import CONNECTIONS


class PublisherConfig(NamedTuple):
    """A part of the settings, as plain values."""

    lease_seconds: float = 15.0
    """A lease that is not renewed for this long is lost."""
    max_retries: int = 3
    """A result is given up after this many refusals that are its own."""
    breaker_threshold: int = 5
    """Failures in a row that open the API's circuit breaker."""
    backoff_factor: float = 2.0
    """Each pause after a failure is this many times longer than the one before."""
    connections: int = CONNECTIONS
    """At most this many PATCHes are under way, except for those that hang."""
    patches_per_minute: int = 0
    """At most this many PATCHes leave in a minute; 0 for any number."""
