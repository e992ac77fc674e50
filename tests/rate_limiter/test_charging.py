"""What a batch is charged if there are quotas, and what happens to requeued tasks."""

from __future__ import annotations

import pytest

from common.wire import messages as m
from common.wire.timing import SENT_WITHIN_S
from stages.rate_limiter.charging import MOST_REQUESTS_PER_BATCH
from stages.rate_limiter.quota.buckets import Period
from stages.rate_limiter.quota.counters import Unit, WindowId
from tests.decisions import of_type
from tests.rate_limiter.limiter import PER_HOUR, REQUESTS_PER_MINUTE, Limiter, ids_of
from tests.samples import names

TOKENS_PER_DAY = WindowId(Unit.TOKENS, Period.DAY)


def charged(batch: m.Batch) -> int:
    assert batch.charge is not None
    return batch.charge.requests


def test_a_batch_has_no_request_limit_if_there_are_no_quotas() -> None:
    limiter = Limiter()
    limiter.ready(1)
    limiter.tasks("a")
    assert (limiter.batch.limited, charged(limiter.batch)) == (False, 1)


def test_a_batch_is_limited_to_its_charge_if_there_is_any_quota() -> None:
    limiter = Limiter({PER_HOUR: 100})
    limiter.ready(1)
    limiter.tasks("a", tokens=7)
    assert limiter.batch.limited
    assert limiter.batch.charge == m.Charge(
        limiter.now.wall, 7, MOST_REQUESTS_PER_BATCH, limiter.now.mono + SENT_WITHIN_S
    )


@pytest.mark.parametrize(("limit", "slots", "expected"), [(1, 4, 1), (9, 4, 2), (100, 4, MOST_REQUESTS_PER_BATCH)])
def test_the_remaining_requests_are_shared_among_the_free_slots(limit: int, slots: int, expected: int) -> None:
    limiter = Limiter({REQUESTS_PER_MINUTE: limit}, batch_size=1, hold_seconds=100)
    limiter.ready(slots)
    limiter.tasks("a")
    assert charged(limiter.batch) == expected
    assert limiter.used(REQUESTS_PER_MINUTE) == expected
    limiter.finished(limiter.batch, requests=1)
    assert limiter.used(REQUESTS_PER_MINUTE) == 1


def test_requeued_tasks_are_dispatched_in_smaller_batches_after_one_turn_of_the_group() -> None:
    limiter = Limiter({REQUESTS_PER_MINUTE: 100}, batch_size=8)
    limiter.ready(1)
    limiter.tasks(*names(10))
    first = limiter.batch
    done = limiter.finished(first, requeue={4: names(8)}, uncharged=8, tokens=0, requests=1)
    assert ids_of(limiter.batch) == ["t8", "t9"], "each group gets one turn"
    assert of_type(m.Deferred, done) == []
    limiter.finished(limiter.batch)
    assert ids_of(limiter.batch) == ["t0", "t1", "t2", "t3"]
    limiter.finished(limiter.batch)
    assert ids_of(limiter.batch) == ["t4", "t5", "t6", "t7"]


def test_requeued_tasks_in_quarantine_are_dispatched_in_smaller_batches() -> None:
    limiter = Limiter({REQUESTS_PER_MINUTE: 100}, batch_size=16)
    limiter.ready(1)
    limiter.tasks(*names(4), attempt=2)
    limiter.finished(limiter.batch, requeue={2: names(4)}, uncharged=4, tokens=0)
    assert ids_of(limiter.batch) == ["t0", "t1"]


def test_requeued_tasks_of_a_batch_from_before_a_restart_go_back_to_the_api() -> None:
    limiter = Limiter({REQUESTS_PER_MINUTE: 100})
    held = m.HeldBatch("old-1", "small", ["a", "b"], m.Charge(limiter.now.wall - 5, 10, 2))
    limiter.ready(1, held)
    finished = m.Finished("embedder_00", "boot", "old-1", 5, 2, requeue={1: ["b"]})
    done = limiter.did(limiter.state.on_finished(finished, limiter.now))
    (deferred,) = of_type(m.Deferred, done)
    assert (deferred.ids, deferred.until, deferred.key) == (["b"], limiter.now.wall, None)


def test_a_daily_token_quota_is_used_although_estimates_are_far_too_high() -> None:
    limiter = Limiter({TOKENS_PER_DAY: 1000}, batch_size=2)
    limiter.ready(1)
    limiter.tasks(*names(40), tokens=200)  # a quarter of them will be used
    spent = batches = 0
    while limiter.batches:
        batch = limiter.batch
        batches += 1
        spent += 50 * len(batch.tasks)
        done = limiter.finished(batch, tokens=50 * len(batch.tasks))
    assert 800 < spent <= 1000
    assert of_type(m.Deferred, done)
    assert batches < 15


@pytest.mark.parametrize(
    ("reported", "counted"), [(-1, 0), (0, 0), (70, 70), (10**12 + 1, 7), (2**63, 7), (2**64 - 1, 7)]
)
def test_a_number_of_tokens_that_cannot_be_true_harms_neither_the_quota_nor_the_rate_limiter(
    reported: int, counted: int
) -> None:
    limiter = Limiter({TOKENS_PER_DAY: 1000})
    limiter.ready(1)
    limiter.tasks("a", tokens=7)
    limiter.finished(limiter.batch, tokens=reported, requests=1)
    assert limiter.used(TOKENS_PER_DAY) == counted
    limiter.tasks("b", tokens=7)
    assert ids_of(limiter.batch) == ["b"]
