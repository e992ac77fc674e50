"""What the rate limiter does when batches get lost, embedders die, or it dies itself."""

from __future__ import annotations

from typing import Any

from common.wire import messages as m
from common.wire.timing import MISSING_AFTER_S, SILENT_AFTER_S, UNREAD_S
from tests.decisions import events, log_fields, of_type, sent_to
from tests.rate_limiter.limiter import PER_MINUTE, Limiter, ids_of
from tests.samples import names


def with_a_batch(*ids: str, **limits: Any) -> tuple[Limiter, m.Batch]:
    """An embedder has these tasks, and the rate limiter knows that it has."""
    limiter = Limiter(**limits)
    limiter.tick()
    limiter.ready(1)
    limiter.tasks(*ids)
    batch = limiter.batch
    limiter.ready(0, batch)
    return limiter, batch


# ---- an embedder dies ----


def test_a_silent_embedder_is_lost_after_three_seconds_and_its_tasks_wait_again() -> None:
    limiter, _ = with_a_batch("a", "b")
    assert "embedder_lost" not in events(limiter.live(3.0, 0.5))
    done = limiter.live(0.5, 0.5)
    assert log_fields("embedder_lost", done) == {"level": "warning", "embedder": "embedder_00", "task_ids": ["a", "b"]}
    assert limiter.waiting == ["a", "b"]
    assert limiter.state.report(limiter.now).blockers == ["no embedder has reported ready"]


def test_a_new_boot_of_an_embedder_shows_at_once_that_the_earlier_one_died() -> None:
    limiter, _ = with_a_batch("a")
    limiter.ready(1, boot="another")
    assert ids_of(limiter.batch) == ["a"]
    assert limiter.batch.boot_id == "another"


def test_a_task_whose_embedder_died_with_it_gets_another_attempt() -> None:
    limiter, batch = with_a_batch("a")
    assert batch.tasks[0].attempt == 1
    limiter.ready(1, boot="another")
    assert limiter.batch.tasks[0].attempt == 2


def test_a_task_that_never_reached_its_embedder_keeps_its_attempt() -> None:
    limiter = Limiter()
    limiter.ready(1)
    limiter.tasks("a")
    limiter.ready(1, boot="another")
    assert limiter.batch.tasks[0].attempt == 1


def test_tasks_in_quarantine_are_dispatched_in_small_batches_and_then_alone() -> None:
    limiter, _ = with_a_batch(*names(100), batch_size=100)
    limiter.ready(20, boot="second")
    assert limiter.sizes == [10] * 10
    worst, *others = limiter.batches
    limiter.ready(10, *limiter.batches, boot="second")
    for batch in others:
        limiter.finished(batch, boot="second")
    limiter.ready(5, boot="third")
    assert limiter.sizes == [1]
    assert limiter.batch.tasks[0].attempt == 3
    assert set(limiter.waiting) | set(ids_of(limiter.batch)) == set(ids_of(worst))


def test_tasks_in_quarantine_do_not_share_a_batch_with_other_tasks() -> None:
    limiter, _ = with_a_batch("suspect", batch_size=100)
    limiter.tasks(*names(3, "innocent"))
    limiter.ready(20, boot="second")
    assert limiter.sizes == [1, 1, 1, 1]
    assert [batch.tasks[0].attempt for batch in limiter.batches if "suspect" in ids_of(batch)] == [2]


def alone(limiter: Limiter, *ids: str) -> None:
    """Let these wait in their third attempt."""
    limiter.tasks(*ids, attempt=3)


def test_a_task_that_must_be_alone_waits_for_an_embedder_without_batches() -> None:
    limiter, batch = with_a_batch("a")
    limiter.ready(4, batch)
    alone(limiter, "s1", "s2")
    assert limiter.batches == []
    limiter.finished(batch)
    assert ids_of(limiter.batch) == ["s1"]


def test_tasks_that_must_be_alone_are_dispatched_one_after_the_other() -> None:
    limiter = Limiter()
    limiter.ready(5)
    alone(limiter, "s1", "s2")
    assert ids_of(limiter.batch) == ["s1"]
    limiter.finished(limiter.batch)
    assert ids_of(limiter.batch) == ["s2"]


def test_an_embedder_reserved_for_a_task_that_must_be_alone_gets_no_other_batch() -> None:
    limiter, batch = with_a_batch("a")
    limiter.ready(4, batch)
    alone(limiter, "s")
    limiter.tasks("b")
    assert limiter.batches == []
    limiter.finished(batch)
    assert ids_of(limiter.batch) == ["s"]
    limiter.finished(limiter.batch)
    assert ids_of(limiter.batch) == ["b"]


def test_embedders_that_are_not_reserved_get_other_batches() -> None:
    limiter = Limiter()
    limiter.ready(3, m.HeldBatch("x-1", "", ["x"]), m.HeldBatch("x-2", "", ["y"]))
    limiter.ready(3, m.HeldBatch("x-3", "", ["z"]), embedder="embedder_01")
    alone(limiter, "s")
    limiter.tasks("b")
    assert limiter.inboxes == ["ipc://embedder_00"]
    limiter.finished(m.Batch("x-3", "boot", "", "", []), embedder="embedder_01")
    assert limiter.inboxes == ["ipc://embedder_01"]
    assert ids_of(limiter.batch) == ["s"]


def test_no_embedder_is_reserved_for_a_task_whose_provider_is_in_a_cooldown() -> None:
    limiter = Limiter()
    limiter.ready(2, key_cooldowns={"down": limiter.now.wall + 30})
    limiter.tasks("s", key="down", attempt=3)
    limiter.tasks("a", key="up")
    assert ids_of(limiter.batch) == ["a"]


def test_no_embedder_is_reserved_for_a_task_that_waits_for_a_quota() -> None:
    limiter = Limiter(models={"spent": {PER_MINUTE: 1}}, hold_seconds=100)
    limiter.ready(2)
    limiter.tasks("last", key="spent")
    limiter.finished(limiter.batch)
    limiter.tasks("s", key="spent", attempt=3)
    limiter.tasks("a", key="other")
    assert ids_of(limiter.batch) == ["a"]


def test_a_task_that_killed_too_many_embedders_is_poison_and_the_others_are_dispatched() -> None:
    limiter = Limiter(max_dispatches=5)
    limiter.ready(1)
    limiter.tasks("poison", attempt=5)
    limiter.ready(0, limiter.batch)
    limiter.tasks("innocent")
    done = limiter.ready(1, boot="another")
    assert of_type(m.Deferred, done) == [m.Deferred(["poison"], limiter.now.wall, "poison")]
    assert ids_of(limiter.batch) == ["innocent"]
    limiter.tasks("poison")  # the fetcher decides whether it ever comes again
    assert limiter.waiting == ["poison"]


def test_the_poison_task_of_a_batch_is_found_and_no_other_task_fails() -> None:
    limiter = Limiter(batch_size=64)
    limiter.tasks(*names(64))
    limiter.ready(5, boot="0")
    done: set[str] = set()
    given_up: list[str] = []
    deaths = 0
    for _ in range(200):
        handed = limiter.batches
        if not handed:
            break
        limiter.ready(5, *handed, boot=str(deaths))
        if any("t13" in ids_of(batch) for batch in handed):
            deaths += 1
            given_up += [i for told in of_type(m.Deferred, limiter.ready(5, boot=str(deaths))) for i in told.ids]
        else:
            following: list[m.Batch] = []
            for batch in handed:
                done |= set(ids_of(batch))
                limiter.finished(batch, boot=str(deaths))
                following += limiter.batches
            limiter.batches = following
    assert given_up == ["t13"]
    assert deaths == 5
    assert done == set(names(64)) - {"t13"}


def test_a_batch_from_before_a_restart_whose_embedder_died_returns_when_its_lease_expires() -> None:
    limiter = Limiter()
    limiter.ready(0, m.HeldBatch("old-1", "model", ["a"]))
    limiter.ready(1, boot="another")
    assert limiter.batches == []
    limiter.tasks("a")
    assert ids_of(limiter.batch) == ["a"]


def test_messages_from_an_earlier_boot_of_an_embedder_are_ignored() -> None:
    limiter, batch = with_a_batch("a")
    limiter.ready(0, boot="another")
    assert limiter.waiting == ["a"]
    assert limiter.finished(batch) == []
    assert limiter.waiting == ["a"]


def test_messages_from_unknown_embedders_and_about_unknown_batches_are_ignored() -> None:
    limiter, batch = with_a_batch("a")
    assert limiter.finished(batch, embedder="embedder_09") == []
    assert limiter.finished(m.Batch("unknown", "boot", "", "", [])) == []


def test_an_embedder_that_was_only_silent_keeps_its_batches() -> None:
    limiter, batch = with_a_batch("a")
    limiter.live(SILENT_AFTER_S + 1, 0.5)
    assert limiter.waiting == ["a"]
    limiter.ready(1, batch)
    assert limiter.waiting == []
    assert limiter.batches == []
    limiter.finished(batch)
    limiter.after(UNREAD_S).ready(1)
    limiter.tasks("b")
    assert ids_of(limiter.batch) == ["b"]


def test_an_embedder_that_was_silent_gets_no_batch_before_it_has_read_its_messages() -> None:
    limiter, batch = with_a_batch("a")
    limiter.live(SILENT_AFTER_S + 1, 0.5)
    limiter.tasks("b")
    limiter.ready(1, batch)
    limiter.after(UNREAD_S - 0.1).finished(batch)
    assert limiter.batches == []
    limiter.after(0.1).ready(1)
    assert ids_of(limiter.batch) == ["b"]


def test_an_embedder_that_died_gets_a_batch_at_once_when_it_is_back() -> None:
    limiter, _ = with_a_batch("a")
    limiter.live(SILENT_AFTER_S + 1, 0.5)
    limiter.ready(1, boot="another")
    assert ids_of(limiter.batch) == ["a"]


def test_a_pause_of_the_rate_limiter_does_not_lose_the_embedders() -> None:
    limiter, _ = with_a_batch("a")
    limiter.tick()
    assert "embedder_lost" not in events(limiter.after(60).tick())
    assert "embedder_lost" not in events(limiter.live(SILENT_AFTER_S, 0.5))
    assert "embedder_lost" in events(limiter.live(0.5, 0.5))


def test_an_embedder_that_is_silent_after_a_pause_of_the_rate_limiter_is_lost() -> None:
    limiter, batch = with_a_batch("a")
    limiter.tick()
    limiter.after(3600).ready(0, batch)  # read before the first tick after the stop
    limiter.tick()
    assert "embedder_lost" in events(limiter.live(SILENT_AFTER_S + 1, 0.5))


# ---- a batch is lost on its way ----


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
    """What it reads first afterwards was said before the batch had arrived."""
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
    """It names each batch as it reads it, and says so at once."""
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
    """Its `Finished` was lost, so the publisher has its results."""
    limiter, _ = with_a_batch("a")
    assert "batch_lost" not in events(limiter.ready(1))
    assert limiter.waiting == []
    limiter.tasks("a")
    assert ids_of(limiter.batch) == ["a"]


# ---- the rate limiter itself dies ----


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
