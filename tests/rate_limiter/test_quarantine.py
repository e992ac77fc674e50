"""The quarantine: which tasks are in it and for how long, and how their batches are dispatched."""

from __future__ import annotations

from common.wire import messages as m
from common.wire.timing import QUARANTINE_TRUSTED_S, SILENT_AFTER_S
from tests.decisions import log_fields, of_type
from tests.rate_limiter.limiter import PER_MINUTE, TOKENS_PER_MINUTE, Limiter, ids_of, with_a_batch
from tests.samples import names, task


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
    limiter, _ = with_a_batch("quarantined", batch_size=100)
    limiter.tasks(*names(3, "healthy"))
    limiter.ready(20, boot="second")
    assert limiter.sizes == [1, 1, 1, 1]
    assert [batch.tasks[0].attempt for batch in limiter.batches if "quarantined" in ids_of(batch)] == [2]


def alone(limiter: Limiter, *ids: str) -> None:
    """Send tasks in their third attempt, which must be processed alone."""
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


def quarantine(limiter: Limiter) -> set[str]:
    return set(limiter.state.quarantine.cases)


def quarantined(*ids: str) -> Limiter:
    limiter = Limiter()
    limiter.ready(1)
    limiter.tasks(*ids)
    limiter.ready(0, limiter.batch)
    limiter.ready(0, boot="another")
    assert quarantine(limiter) == set(ids)
    return limiter


def test_an_embedder_is_reserved_if_the_first_task_in_quarantine_fits_into_the_quota() -> None:
    limiter = Limiter({TOKENS_PER_MINUTE: 100}, hold_seconds=100)
    limiter.ready(1)
    limiter.tasks("x", tokens=50)
    limiter.finished(limiter.batch)
    small, large = (task(name, tokens=tokens, attempt=3) for name, tokens in (("a", 5), ("b", 90)))
    limiter.did(limiter.state.on_tasks(m.Tasks([small, large]), limiter.now))
    assert ids_of(limiter.batch) == ["a"]


def test_a_task_that_waited_long_in_quarantine_goes_back_because_its_result_may_be_accepted() -> None:
    limiter = Limiter()
    limiter.ready(1)
    limiter.tasks("a", "b")
    limiter.ready(0, limiter.batch)
    limiter.tasks("fresh")
    done = limiter.ready(0, boot="another") + limiter.live(QUARANTINE_TRUSTED_S - 1)
    assert of_type(m.Deferred, done) == []
    done = limiter.live(3)
    (told,) = of_type(m.Deferred, done)
    assert (told.ids, told.reason, told.key) == (["a", "b"], "provider", None)
    assert log_fields("tasks_deferred", done) == {
        "level": "info",
        "reason": "embedder",
        "until": told.until,
        "task_ids": ["a", "b"],
    }
    assert limiter.waiting == ["fresh"]
    assert limiter.state.owned == {"fresh"}
    assert quarantine(limiter) == set()


def test_the_time_in_quarantine_does_not_count_while_an_embedder_has_the_task() -> None:
    limiter = Limiter()
    limiter.ready(1)
    limiter.tasks("a")
    limiter.ready(0, limiter.batch)
    limiter.ready(1, boot="another")
    batch = limiter.batch
    for _ in range(100):
        assert of_type(m.Deferred, limiter.after(1).ready(0, batch, boot="another")) == []
    limiter.ready(1, boot="third")
    assert ids_of(limiter.batch) == ["a"]


def test_a_finished_task_leaves_the_quarantine() -> None:
    limiter = quarantined("a")
    limiter.ready(1, boot="another")
    limiter.finished(limiter.batch, boot="another")
    assert quarantine(limiter) == set()


def test_a_deferred_task_leaves_the_quarantine() -> None:
    limiter = quarantined("a", "b")
    limiter.ready(1, boot="another", key_cooldowns={"*": limiter.now.wall + 900})
    assert limiter.waiting == []
    assert quarantine(limiter) == set()


def test_a_poison_task_leaves_the_quarantine() -> None:
    limiter = Limiter()
    limiter.ready(1)
    limiter.tasks("a", attempt=5)
    limiter.ready(0, limiter.batch)
    limiter.ready(0, boot="another")
    assert quarantine(limiter) == set()


def test_a_task_whose_embedder_was_only_silent_and_died_later_leaves_the_quarantine() -> None:
    limiter = Limiter()
    limiter.ready(1)
    limiter.tasks("a")
    batch = limiter.batch
    limiter.ready(0, batch)
    limiter.live(SILENT_AFTER_S + 1, 0.5)
    limiter.ready(0, batch)
    assert quarantine(limiter) == {"a"}
    limiter.ready(0, boot="another")
    assert limiter.waiting == []
    assert quarantine(limiter) == set()


def test_a_task_whose_batch_was_lost_stays_in_quarantine() -> None:
    limiter = quarantined("a")
    limiter.ready(1, boot="another")
    for _ in range(3):
        limiter.after(1).ready(0, boot="another")
    assert limiter.waiting == ["a"]
    assert quarantine(limiter) == {"a"}
