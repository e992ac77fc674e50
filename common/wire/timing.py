"""Every interval on which two processes must agree, in seconds. They are in one file because they depend on each other.

`tests/common/test_timing.py` checks the inequalities between them, and gives the reason for each. When you change a
number here, run that test.
"""

from __future__ import annotations

TICK_S = 0.1
"""How often the loop of each process calls its state's `on_tick`."""
IDLE_TICK_S = 0.4
"""The same in a process that has nothing to do."""
RECONNECT_INTERVAL_S = 0.05
"""How often a socket tries to connect to a peer that is not there (ZeroMQ's `RECONNECT_IVL`)."""
HEARTBEAT_INTERVAL_S = 1.0
"""How often each process tells the monitor that it is alive."""
DEAD_AFTER_S = 5.0
"""The monitor reports a process without a heartbeat for this long as dead. One late heartbeat is not enough."""

READY_INTERVAL_S = 1.0
"""The longest time between two `Ready` messages of one embedder."""
SILENT_AFTER_S = 3.0
"""An embedder without a `Ready` for this long is treated as dead, and its tasks are queued again."""
LEARNING_S = 1.25
"""How long a rate limiter only listens after its start. In this time every living embedder sends a `Ready`."""
MISSING_AFTER_S = 2.0
"""A batch missing from every `Ready` for this many seconds is treated as lost in transit. Its age is not used, because
after a pause the first messages read may predate the batch."""
UNREAD_S = 0.5
"""An embedder that returns after it was treated as dead gets no new batch for this long: its inbox may hold batches
that its first `Ready` does not list."""

IN_TRANSIT_S = 1.0
"""A task may lie unread in the rate limiter's inbox for this long. An inventory that does not list such a task proves
nothing about it."""
UNCONFIRMED_S = 1.0
"""A task that a new rate limiter's inventory does not list is treated as lost after this long, unless a message in
between confirms it."""
STOPPED_AFTER_S = 0.5
"""If two ticks are further apart than this, the process was stopped, and news may wait unread in its inbox."""

SENT_WITHIN_S = 10.0
"""A request is sent this long after its batch was charged, or not at all: then the batch is given back. It is longer
than an embedder waits for its provider, so that retries are usually covered by the charge."""
IN_NETWORK_S = 0.5
"""The longest time between the moment when a request was written and the moment when its provider counts it."""
REACHED_WITHIN_S = SENT_WITHIN_S + IN_NETWORK_S
"""A charge counts in the rolling quotas from its end of this time on, until it is known when its requests left."""

SETTLED_KEPT_S = 120.0
"""How long the publisher remembers the id of a settled task, to drop a result that arrives late."""
QUARANTINE_TRUSTED_S = 90.0
"""The longest wait of a quarantined task. After that the publisher might have forgotten its earlier result, so the rate
limiter gives the task back."""
REQUEUED_AFTER_S = 60.0
"""A task that is pending again this long after it was settled was queued again on purpose."""

DRAINING_INTERVAL_S = 0.5
"""How often a draining embedder tells the publisher that more results may come."""
DRAINING_SILENT_AFTER_S = 3.0
"""The publisher stops waiting for a draining embedder that has been silent for this long."""
DRAIN_AT_LEAST_S = 1.0
"""The shortest time that a publisher drains. Embedders that are stopped at the same moment can still reach it."""

TOKEN_REQUEST_INTERVAL_S = 1.0
"""How often a process asks the token broker again while it has no usable token."""


SHORTEST_LEASE_S = 1.0
"""The smallest LEASE_SECONDS: a renewal follows after a third of it, and may be late by a tick and a slow turn."""
LONGEST_LEASE_S = 55.0
"""The largest LEASE_SECONDS: a duplicate of a lost task must meet a publisher that remembers it (`SETTLED_KEPT_S`)."""


def renewal_interval_s(lease_seconds: float) -> float:
    """How often the holder of a task sends `Holding`: a third of a lease, so one message may be lost."""
    return lease_seconds / 3


def holder_silent_after_s(lease_seconds: float) -> float:
    """A rate limiter without a `Holding` for this long is treated as gone: it has missed two renewals."""
    return lease_seconds * 2 / 3
