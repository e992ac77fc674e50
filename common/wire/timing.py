"""Every interval on which two processes must agree, in seconds: one place, because they depend on each other.

`tests/common/test_timing.py` checks the inequalities between them; change a number there first.
"""

from __future__ import annotations

TICK_S = 0.1
"""How often each loop wakes for what its state does by the clock."""
HEARTBEAT_INTERVAL_S = 1.0
"""How often each process tells the monitor that it is alive."""
DEAD_AFTER_S = 5.0
"""The monitor reports a process without a heartbeat for this long as dead: one late turn or a busy host is no death."""

READY_INTERVAL_S = 1.0
"""The longest time between two `Ready` of one embedder."""
SILENT_AFTER_S = 3.0
"""An embedder without a `Ready` for this long is treated as dead, and its tasks are queued again."""
LEARNING_S = 1.25
"""How long a rate limiter that has just started only listens: each living embedder says `Ready` meanwhile."""
MISSING_AFTER_S = 2.0
"""A batch missing from every `Ready` for this many seconds is treated as lost in transit. Its age is not used, because
after a pause the first messages read may predate the batch."""
UNREAD_S = 0.5
"""How long an embedder that was treated as dead, and was only stopped, gets to read what lies in its inbox."""

IN_TRANSIT_S = 1.0
"""How long a task may lie unread in the rate limiter's inbox, so that an inventory does not list it."""
UNCONFIRMED_S = 1.0
"""How long a task that a new rate limiter's inventory did not list may still be named before it counts as lost."""
STOPPED_AFTER_S = 0.5
"""Two ticks further apart than this mean that the process was stopped, and that news may wait in its inbox."""

SETTLED_KEPT_S = 120.0
"""How long the publisher remembers the id of a settled task, to drop results that arrive late."""
QUARANTINE_TRUSTED_S = 90.0
"""How long a quarantined task may wait: after that the publisher might no longer recognise its earlier result."""
REQUEUED_AFTER_S = 60.0
"""A task that is pending again this long after it was settled was queued again on purpose."""

DRAINING_INTERVAL_S = 0.5
"""How often a draining embedder tells the publisher that results may still come."""
DRAINING_SILENT_AFTER_S = 3.0
"""The publisher stops waiting for a draining embedder that has been silent for this long."""
DRAIN_AT_LEAST_S = 1.0
"""How long a draining publisher stays at least: embedders that are stopped in the same moment can still reach it."""

TOKEN_REQUEST_INTERVAL_S = 1.0
"""How often the token broker is asked while there is no usable token."""


def renewal_interval_s(lease_seconds: float) -> float:
    """How often each holder of a task says so (`Holding`): a third of a lease, so that one may be lost on its way."""
    return lease_seconds / 3


def holder_silent_after_s(lease_seconds: float) -> float:
    """A rate limiter that has not said `Holding` for this long is gone: it has missed two renewals."""
    return lease_seconds * 2 / 3
