"""What the rate limiter does when embedders die or are silent."""

from __future__ import annotations

from common.wire import messages as m
from common.wire.timing import SILENT_AFTER_S, UNREAD_S
from tests.decisions import events, log_fields, of_type
from tests.rate_limiter.limiter import Limiter, ids_of, with_a_batch


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


def test_an_embedder_that_returns_late_gives_back_no_task_that_another_has_by_then() -> None:
    limiter, batch = with_a_batch("a", "b")
    others: list[m.Batch] = []
    for _ in range(5):
        limiter.after(1.0)
        limiter.ready(2, *others, embedder="embedder_01")
        others += limiter.batches
        limiter.tick()
        others += limiter.batches
    assert {i for other in others for i in ids_of(other)} == {"a", "b"}
    limiter.ready(0, batch)
    done = limiter.finished(batch, requests=0, tokens=0, requeue={2: ["a", "b"]}, uncharged=2)
    elsewhere = {i for other in others for i in ids_of(other)}
    given_back = {i for deferred in of_type(m.Deferred, done) for i in deferred.ids}
    assert not given_back & elsewhere
    limiter.tasks(*elsewhere)
    assert limiter.waiting == [], "they are with another embedder"
