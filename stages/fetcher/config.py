"""The settings that the fetcher's decisions depend on."""

from __future__ import annotations

from typing import NamedTuple

from common.api.patch_queue import CONNECTIONS


class FetcherConfig(NamedTuple):
    """A part of the settings, as plain values."""

    max_in_flight: int
    """At most this many tasks are leased."""
    lease_seconds: float
    """A lease that is not renewed for this long is lost."""
    max_dispatches: int
    """A task that lost its embedder this often is given up."""
    polling_interval_s: float
    """Time between two polls when there is nothing to do."""
    breaker_threshold: int = 5
    """Failures in a row that open the API's circuit breaker."""
    backoff_factor: float = 2.0
    """Each pause after a failure is this many times longer than the one before."""
    claim_tasks: bool = False
    """Whether each task is claimed (PATCH `in_progress`) before it is dispatched."""
    connections: int = CONNECTIONS
    """At most this many claims are under way."""
    requests_per_minute: int = 0
    """At most this many requests to the API leave the whole pipeline in a minute; 0 for any number."""
