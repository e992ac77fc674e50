"""Batches that are lost on their way to an embedder, and batches that a restarted rate limiter learns about."""

from __future__ import annotations

from common.wire import messages as m
from common.wire.timing import MISSING_AFTER_S
from tests.decisions import events, sent_to
from tests.rate_limiter.limiter import Limiter, ids_of, with_a_batch


def test_a_batch_that_its_embedder_never_reports_is_lost_and_its_tasks_wait_again() -> None:
    limiter = Limiter()
    limiter.ready(2)
    limiter.tasks("a", "b")
    lost = limiter.batches
    limiter.ready(0)
    limiter.after(MISSING_AFTER_S / 2).ready(0)
    limiter.after(MISSING_AFTER_S / 2 - 0.1).ready(0)
    assert limiter.waiting == []
    done = limiter.after(0.1).ready(0)
    assert events(done) == ["batch_lost", "batch_lost"]
    assert sorted(limiter.waiting) == ["a", "b"]
    limiter.ready(1)
    assert limiter.batch.tasks[0].attempt == 1
    assert limiter.batch.batch_id not in {batch.batch_id for batch in lost}


def test_lost_tasks_return_to_the_front_of_the_queue_in_their_order() -> None:
    limiter = Limiter()
    limiter.ready(1)
    limiter.tasks("a", "b", "c")
    limiter.tasks("d")
    limiter.ready(0)
    limiter.after(MISSING_AFTER_S / 2).ready(0)
    limiter.after(MISSING_AFTER_S / 2).ready(0)
    assert limiter.waiting == ["a", "b", "c", "d"]


def test_a_lost_task_that_is_received_again_waits_once() -> None:
    limiter = Limiter()
    limiter.ready(1)
    limiter.tasks("a")
    for _ in range(3):
        limiter.ready(0)
        limiter.after(MISSING_AFTER_S / 2)
    limiter.tasks("a")
    assert limiter.waiting == ["a"]


def test_messages_read_after_a_pause_of_the_rate_limiter_do_not_prove_a_loss() -> None:
    """The first messages that it reads afterwards were sent before the batch arrived."""
    limiter = Limiter()
    limiter.ready(1)
    limiter.tasks("a")
    batch = limiter.batch
    limiter.after(30)
    for _ in range(3):
        assert limiter.ready(1) == []
    limiter.ready(0, batch)
    limiter.after(MISSING_AFTER_S).ready(0, batch)
    assert limiter.waiting == []
    assert limiter.batches == []


def test_the_first_message_after_a_pause_of_an_embedder_does_not_prove_a_loss() -> None:
    """It reports each batch at once when it reads it."""
    limiter = Limiter()
    limiter.ready(2)
    limiter.tasks("a", "b")
    first, second = limiter.batches
    limiter.ready(2)
    assert "batch_lost" not in events(limiter.after(MISSING_AFTER_S + 0.5).ready(1, first))
    limiter.ready(0, first, second)
    assert limiter.waiting == []
    assert limiter.batches == []


def test_a_batch_that_an_embedder_no_longer_reports_is_finished() -> None:
    """Its `Finished` message was lost, so the publisher has its results."""
    limiter, _ = with_a_batch("a")
    assert "batch_lost" not in events(limiter.ready(1))
    assert limiter.waiting == []
    limiter.tasks("a")
    assert ids_of(limiter.batch) == ["a"]


def test_a_restarted_rate_limiter_learns_the_batches_of_the_embedders_and_dispatches_none_twice() -> None:
    limiter = Limiter(learnt=False)
    limiter.tasks("a", "b", "c")
    limiter.ready(1, m.HeldBatch("old-1", "model", ["a"]), m.HeldBatch("old-2", "model", ["c"]))
    limiter.tasks("a")
    limiter.live(2)
    assert ids_of(limiter.batch) == ["b"]


def test_a_task_received_after_its_batch_was_learnt_is_not_dispatched() -> None:
    limiter = Limiter()
    limiter.ready(1, m.HeldBatch("old-1", "model", ["a"]))
    limiter.tasks("a")
    assert limiter.batches == []
    assert limiter.waiting == []


def test_tasks_of_learnt_batches_are_in_the_inventory() -> None:
    limiter = Limiter(learnt=False)
    limiter.ready(1, m.HeldBatch("old-1", "model", ["a"]))
    assert sent_to("fetcher", limiter.tick()) == [m.Holding("rate_limiter", [], ["a"])]


def test_a_learnt_batch_finishes_as_any_other_batch() -> None:
    limiter = Limiter()
    old = m.HeldBatch("old-1", "model", ["a", "b"])
    limiter.ready(0, old)
    done = limiter.finished(m.Batch("old-1", "boot", "", "model", []), deferred=["b"], until=limiter.now.wall + 9)
    assert sent_to("fetcher", done) == [m.Deferred(["b"], limiter.now.wall + 9, "provider")]
    limiter.tasks("a")
    assert ids_of(limiter.batch) == ["a"]
