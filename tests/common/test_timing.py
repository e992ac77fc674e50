"""The inequalities between the intervals that two processes agree on, each with its reason.

The intervals are chosen for a loaded machine: an event that is due happens up to one tick late, and a message arrives
up to one tick after it was sent.
"""

from __future__ import annotations

import pytest

from common.settings.settings import defaults
from common.wire import timing
from common.wire.timing import (
    DEAD_AFTER_S,
    DRAIN_AT_LEAST_S,
    DRAINING_INTERVAL_S,
    DRAINING_SILENT_AFTER_S,
    HEARTBEAT_INTERVAL_S,
    IDLE_TICK_S,
    IN_TRANSIT_S,
    LEARNING_S,
    LONGEST_LEASE_S,
    MISSING_AFTER_S,
    QUARANTINE_TRUSTED_S,
    READY_INTERVAL_S,
    RECONNECT_INTERVAL_S,
    REQUEUED_AFTER_S,
    SETTLED_KEPT_S,
    SHORTEST_LEASE_S,
    SILENT_AFTER_S,
    STOPPED_AFTER_S,
    TICK_S,
    TOKEN_REQUEST_INTERVAL_S,
    UNCONFIRMED_S,
    UNREAD_S,
    holder_silent_after_s,
    renewal_interval_s,
)

LEASE_S: float = defaults()["lease_seconds"]
leases = pytest.mark.parametrize("lease_s", [SHORTEST_LEASE_S, LEASE_S, LONGEST_LEASE_S])


def test_every_interval_is_a_number_of_seconds_and_says_so_in_its_name() -> None:
    numbers = {name: value for name, value in vars(timing).items() if isinstance(value, float | int)}
    assert all(name.endswith("_S") and value > 0 for name, value in numbers.items())


def test_a_tick_is_short_beside_every_other_interval() -> None:
    """An interval is measured in ticks, so it is imprecise by one. No interval may be mostly imprecision."""
    intervals = [value for name, value in vars(timing).items() if name.endswith("_S")]
    assert all(value >= 5 * TICK_S for value in intervals if value not in (TICK_S, IDLE_TICK_S, RECONNECT_INTERVAL_S))
    assert RECONNECT_INTERVAL_S < TICK_S


def test_an_idle_process_ticks_often_enough() -> None:
    """It must not seem to have been stopped. It renews leases in time, with a slow turn."""
    assert TICK_S < IDLE_TICK_S < STOPPED_AFTER_S - TICK_S / 2
    assert renewal_interval_s(LEASE_S) > 3 * IDLE_TICK_S


# ---- heartbeats ----


def test_the_monitor_reports_a_process_as_dead_only_after_several_missed_heartbeats() -> None:
    """A busy host, or one slow turn of the loop, delays or drops a heartbeat or two."""
    assert DEAD_AFTER_S > 4 * HEARTBEAT_INTERVAL_S + TICK_S


# ---- what embedders have ----


def test_a_new_rate_limiter_hears_every_living_embedder_before_it_hands_out_a_batch() -> None:
    """Otherwise it would hand out a second time what an embedder has. The embedder must reconnect, then wait for its
    next `Ready` and the tick that sends it; the rate limiter reads it one tick later."""
    assert LEARNING_S > READY_INTERVAL_S + 2 * TICK_S
    assert LEARNING_S > RECONNECT_INTERVAL_S + READY_INTERVAL_S + TICK_S


def test_an_embedder_is_treated_as_dead_only_after_several_missed_ready_messages() -> None:
    """`Ready` is dropped, not queued, while the connection is down: one or two may be lost without any fault."""
    assert SILENT_AFTER_S > 2 * READY_INTERVAL_S + 2 * TICK_S


def test_half_of_the_silence_of_a_dead_embedder_is_longer_than_between_two_ready_messages() -> None:
    """The rate limiter takes a gap of half of `SILENT_AFTER_S` as a sign that a process was stopped for a while."""
    assert SILENT_AFTER_S / 2 > READY_INTERVAL_S + 2 * TICK_S


def test_a_batch_is_treated_as_lost_only_when_more_than_two_ready_messages_miss_it() -> None:
    """The first `Ready` without it may have been sent before the batch arrived, the second may be read late."""
    assert MISSING_AFTER_S >= 2 * READY_INTERVAL_S


def test_a_lost_batch_is_found_before_its_embedder_would_be_treated_as_dead() -> None:
    """The embedder is alive. If its death were decided first, its other batches would be queued again too."""
    assert SILENT_AFTER_S > MISSING_AFTER_S


def test_a_lost_batch_is_queued_again_within_the_three_seconds_that_the_design_promises() -> None:
    """Design, rule 7. The first `Ready` that misses the batch comes within one interval."""
    assert READY_INTERVAL_S + MISSING_AFTER_S <= 3.0


def test_a_returning_embedder_has_read_its_inbox_before_it_gets_a_new_batch_and_loses_one_ready_at_most() -> None:
    """It reads its whole inbox within a few turns. A longer wait would leave its slots empty."""
    assert 4 * TICK_S < UNREAD_S < READY_INTERVAL_S


# ---- restart of the rate limiter ----


def test_a_message_to_the_rate_limiter_is_read_before_its_inventory_counts_against_a_task() -> None:
    """A task may arrive just after the inventory was made, and the inventory is read one tick later."""
    assert IN_TRANSIT_S > RECONNECT_INTERVAL_S + 4 * TICK_S


def test_a_task_that_an_inventory_does_not_list_may_still_be_confirmed() -> None:
    """An embedder that was busy, or the publisher with a new result, names it with its next message."""
    assert UNCONFIRMED_S > RECONNECT_INTERVAL_S + 4 * TICK_S


def test_a_stopped_process_is_noticed_before_a_task_is_treated_as_lost() -> None:
    """A stop shorter than `STOPPED_AFTER_S` is not noticed; it must leave time for the messages that are waiting."""
    assert 3 * TICK_S < STOPPED_AFTER_S <= UNCONFIRMED_S - 4 * TICK_S


def test_tasks_of_a_rate_limiter_that_died_are_dispatched_again_as_soon_as_the_design_promises() -> None:
    """Design, section 4: 2.5 s after the restart."""
    assert LEARNING_S + UNCONFIRMED_S + 2 * TICK_S <= 2.5


# ---- leases ----


@leases
def test_one_renewal_of_a_lease_may_be_lost(lease_s: float) -> None:
    """`Holding` is dropped, not queued, while the connection is down. After a lost one the next must be in time."""
    assert 2 * renewal_interval_s(lease_s) < lease_s


@leases
def test_a_rate_limiter_is_treated_as_gone_before_a_lease_expires_but_not_after_one_lost_renewal(
    lease_s: float,
) -> None:
    """While it is gone no lease expires, because nothing tells what embedders have. So this must be known first."""
    assert renewal_interval_s(lease_s) < holder_silent_after_s(lease_s) < lease_s


def test_a_restarted_rate_limiter_completes_its_inventory_before_a_default_lease_expires() -> None:
    """Otherwise the fetcher would dispatch tasks again that embedders still have."""
    assert holder_silent_after_s(LEASE_S) > LEARNING_S + UNCONFIRMED_S


# ---- settled tasks ----


def test_a_quarantined_task_waits_only_as_long_as_the_publisher_remembers_its_earlier_result() -> None:
    """An embedder may die after its result was stored. The death is noticed `SILENT_AFTER_S` later; from then on the
    task waits. If it were processed after the publisher forgot it, it would be paid for and reported twice."""
    assert QUARANTINE_TRUSTED_S + SILENT_AFTER_S + READY_INTERVAL_S < SETTLED_KEPT_S


@leases
def test_a_result_that_arrives_after_a_lost_lease_meets_a_publisher_that_remembers_the_task(lease_s: float) -> None:
    """The duplicate of a task is dispatched one lease after the first, and may be lost and dispatched once more."""
    assert 2 * (lease_s + SILENT_AFTER_S) < SETTLED_KEPT_S


def test_the_shortest_lease_is_renewed_several_ticks_before_it_expires() -> None:
    """One renewal may be lost, and the next may be late by the tick that sends it and the tick that reads it."""
    assert SHORTEST_LEASE_S - 2 * renewal_interval_s(SHORTEST_LEASE_S) > 2 * TICK_S


def test_a_task_that_is_pending_a_minute_after_it_was_settled_is_processed_again() -> None:
    """Design, section 6. Sooner than that, an API with a cache or a replica may only show an old state."""
    assert REQUEUED_AFTER_S == 60.0


# ---- the end ----


def test_the_publisher_waits_for_a_draining_embedder_through_several_lost_messages() -> None:
    """`Draining` is dropped, not queued, while the connection is down."""
    assert DRAINING_SILENT_AFTER_S > 4 * DRAINING_INTERVAL_S + TICK_S


def test_a_publisher_that_is_stopped_with_its_embedders_drains_until_they_have_said_so() -> None:
    """All processes get SIGTERM at the same moment. The first `Draining` may be lost, the second arrives in time."""
    assert DRAIN_AT_LEAST_S > RECONNECT_INTERVAL_S + DRAINING_INTERVAL_S + 2 * TICK_S


# ---- the access token ----


def test_the_token_broker_has_time_to_answer_before_it_is_asked_again() -> None:
    """The request and the token each pass one loop."""
    assert TOKEN_REQUEST_INTERVAL_S > RECONNECT_INTERVAL_S + 2 * TICK_S
