"""Poison tasks: a task that kills embedders is found, and no task fails because of an embedder that is broken."""

from __future__ import annotations

from typing import Any

import pytest

from common.process.actions import Instant
from common.wire import messages as m
from stages.rate_limiter.poison import ALONE_FROM_ATTEMPT, Quarantine
from tests.decisions import of_type
from tests.rate_limiter.crashing import CrashingEmbedder
from tests.rate_limiter.limiter import Limiter, ids_of
from tests.samples import names, task


def poison(*ids: str) -> Any:
    return lambda batch: bool(set(ids) & set(batch))


def test_no_task_fails_while_embedders_die_for_a_reason_of_their_own() -> None:
    limiter = Limiter()
    limiter.tasks(*names(40))
    crashing = CrashingEmbedder(limiter)
    crashing.live(3600)
    assert crashing.poison_ids == []
    crashing.kills = poison()
    crashing.live(100)
    assert crashing.done == set(names(40))
    assert limiter.state.owned == set()


def test_neither_of_the_only_two_tasks_fails_while_embedders_die_of_their_own() -> None:
    limiter = Limiter()
    limiter.tasks("a", "b")
    crashing = CrashingEmbedder(limiter)
    crashing.live(3600)
    assert crashing.poison_ids == []


def test_deaths_in_a_long_row_do_not_raise_the_attempt_of_a_task() -> None:
    quarantine = Quarantine(5)
    both = [task("a"), task("b")]
    seen = []
    for number in range(30):
        retried, poison_ids = quarantine.on_death("e0", [both[number % 2]], Instant(float(number), float(number)))
        assert poison_ids == []
        both[number % 2] = retried[0]
        seen.append(retried[0].attempt)
    assert seen[:10] == [2, 2, 3, 3, 4, 4, 5, 5, 5, 5]
    assert set(seen[10:]) == {ALONE_FROM_ATTEMPT}


def test_tasks_quarantined_before_the_last_finished_batch_do_not_fail_in_a_long_row_of_deaths() -> None:
    """A batch that finished before a long row of deaths is not evidence about these deaths."""
    limiter = Limiter(batch_size=144)
    limiter.tasks(*names(12), "other")
    crashing = CrashingEmbedder(limiter, poison(*names(12)))
    while "other" not in crashing.done:
        crashing.live(0.1)
    crashing.kills = lambda _: True
    crashing.live(3600)
    assert crashing.poison_ids == []
    crashing.kills = poison()
    crashing.live(100)
    assert crashing.done == {*names(12), "other"}


def test_a_task_without_evidence_is_retried_alone_on_its_last_attempt() -> None:
    limiter = Limiter()
    limiter.tasks("a", "b", attempt=4)
    crashing = CrashingEmbedder(limiter)
    seen = []
    for _ in range(5):
        seen += [(task.id, task.attempt) for task in limiter.batch.tasks]
        crashing.die()
    assert seen == [("a", 4), ("b", 4), ("a", 5), ("b", 5), ("a", 5)]


def test_a_task_is_retried_alone_even_if_fewer_dispatches_are_allowed() -> None:
    limiter = Limiter(max_dispatches=1)
    limiter.ready(1)
    limiter.tasks("a", "b")
    limiter.ready(0, limiter.batch)
    done = limiter.ready(1, boot="another")
    assert of_type(m.Deferred, done) == []
    assert limiter.sizes == [1]


@pytest.mark.parametrize("neighbours", [0, 1, 40])
def test_a_poison_task_is_reported_after_the_last_allowed_dispatch(neighbours: int) -> None:
    limiter = Limiter()
    limiter.tasks("poison", *names(neighbours))
    crashing = CrashingEmbedder(limiter, poison("poison"))
    assert crashing.live(60) == 5
    assert crashing.poison_ids == ["poison"]
    assert crashing.done == set(names(neighbours))


@pytest.mark.parametrize("number", [2, 3])
def test_several_poison_tasks_are_reported_soon_when_other_tasks_have_finished(number: int) -> None:
    killers = [f"poison{i}" for i in range(number)]
    limiter = Limiter(batch_size=64)
    limiter.tasks(*killers, *names(30))
    crashing = CrashingEmbedder(limiter, poison(*killers))
    crashing.live(10)
    assert sorted(crashing.poison_ids) == killers
    assert crashing.done == set(names(30))
    limiter.tasks("next")
    assert ids_of(limiter.batch) == ["next"]


def test_poison_tasks_without_evidence_wait_until_another_task_is_finished() -> None:
    """As after a restart of the rate limiter, which has lost its evidence."""
    limiter = Limiter()
    limiter.tasks("poison1", "poison2", attempt=3)
    crashing = CrashingEmbedder(limiter, poison("poison1", "poison2"))
    crashing.live(600)
    assert crashing.poison_ids == []
    limiter.tasks("good")
    crashing.live(600)
    assert sorted(crashing.poison_ids) == ["poison1", "poison2"]
    assert crashing.done == {"good"}


def test_only_the_first_of_several_single_tasks_is_reported_while_the_embedder_is_broken() -> None:
    """One task arrives per minute, and the embedder is broken."""
    limiter = Limiter()
    crashing = CrashingEmbedder(limiter)
    for name in names(5):
        limiter.tasks(name)
        crashing.live(60)
    assert crashing.poison_ids == ["t0"]


def test_a_batch_whose_finished_message_was_lost_is_evidence_too() -> None:
    limiter = Limiter()
    limiter.tasks("poison1", "poison2", attempt=4)
    crashing = CrashingEmbedder(limiter, poison("poison1", "poison2"))
    crashing.die()
    crashing.die()
    batches = limiter.batches
    limiter.ready(0, *batches, m.HeldBatch("x", "", ["other"]), boot="2")
    limiter.ready(0, *batches, boot="2")
    limiter.batches = batches
    crashing.die()
    assert crashing.poison_ids == ["poison1"]


def test_batches_finished_by_other_embedders_are_not_evidence() -> None:
    limiter = Limiter()
    limiter.tasks("a", "b", attempt=4)
    crashing = CrashingEmbedder(limiter)
    for number in range(4):
        batches = limiter.batches
        limiter.ready(0, m.HeldBatch(f"x{number}", "", ["other"]), embedder="embedder_01")
        limiter.ready(0, embedder="embedder_01")
        del limiter.state.fleet["embedder_01"]  # otherwise it would get the tasks and finish them
        limiter.batches = batches
        crashing.die()
    assert crashing.poison_ids == []


def test_the_last_task_is_tried_on_a_working_embedder_before_it_is_reported() -> None:
    limiter = Limiter()
    limiter.tasks("a", "b", attempt=4)
    crashing = CrashingEmbedder(limiter)
    crashing.die()
    crashing.die()
    of_a = limiter.batches
    limiter.ready(1, embedder="embedder_01")
    assert ids_of(limiter.batch) == ["b"]
    limiter.finished(limiter.batch, embedder="embedder_01")
    limiter.batches = of_a
    crashing.die()
    assert crashing.poison_ids == []
    assert (limiter.inboxes, ids_of(limiter.batch)) == (["ipc://embedder_01"], ["a"])


def test_tasks_in_quarantine_are_tried_on_an_embedder_that_is_not_failing() -> None:
    limiter = Limiter()
    limiter.ready(1, embedder="broken", boot="0")
    limiter.tasks("quarantined", attempt=3)
    limiter.ready(0, limiter.batch, embedder="broken", boot="0")
    limiter.ready(0, m.HeldBatch("x", "", ["other"]), embedder="good")
    limiter.ready(1, embedder="broken", boot="1")
    assert limiter.batches == []
    limiter.ready(1, embedder="good")
    assert limiter.inboxes == ["ipc://good"]


def test_an_embedder_that_finishes_a_batch_after_its_death_is_not_failing() -> None:
    limiter = Limiter()
    limiter.ready(1, m.HeldBatch("x", "", ["a"]), embedder="was broken", boot="0")
    limiter.ready(1, embedder="was broken", boot="1")
    limiter.tasks("b")
    limiter.finished(limiter.batch, embedder="was broken", boot="1")
    limiter.ready(1, m.HeldBatch("y", "", ["c"]), embedder="good")
    limiter.tasks("quarantined", attempt=3)
    assert limiter.inboxes == ["ipc://was broken"]


def test_evidence_from_one_embedder_counts_when_another_embedder_dies_last() -> None:
    """The other tasks are finished by then, so the embedders that die last had no other batch to finish."""
    quarantine = Quarantine(5)
    poison, poison_ids = task("poison"), list[str]()
    for number, embedder in enumerate(["e0", "e1", "e0", "e1", "e0"]):
        retried, poison_ids = quarantine.on_death(embedder, [poison], Instant(float(number), float(number)))
        if number == 1:
            quarantine.on_finished("e1", ["other"])
        poison = retried[0] if retried else poison
    assert (retried, poison_ids) == ([], ["poison"])


def test_a_batch_finished_only_after_the_last_death_of_its_embedder_is_not_evidence() -> None:
    """The first embedder was broken and works now; the second is still broken."""
    quarantine = Quarantine(5)
    healthy, poison_ids = task("healthy"), list[str]()
    for number, embedder in enumerate(["e0", "e1", "e1", "e1", "e1"]):
        retried, poison_ids = quarantine.on_death(embedder, [healthy], Instant(float(number), float(number)))
        if number == 1:
            quarantine.on_finished("e0", ["other"])
        healthy = retried[0] if retried else healthy
    assert (healthy.attempt, poison_ids) == (5, [])


def test_a_task_that_killed_too_many_embedders_is_poison_and_the_others_are_dispatched() -> None:
    limiter = Limiter(max_dispatches=5)
    limiter.ready(1)
    limiter.tasks("poison", attempt=5)
    limiter.ready(0, limiter.batch)
    limiter.tasks("healthy")
    done = limiter.ready(1, boot="another")
    assert of_type(m.Deferred, done) == [m.Deferred(["poison"], limiter.now.wall, "poison")]
    assert ids_of(limiter.batch) == ["healthy"]
    limiter.tasks("poison")  # the fetcher decides whether it is sent again
    assert limiter.waiting == ["poison"]


def test_the_poison_task_of_a_batch_is_found_and_no_other_task_fails() -> None:
    limiter = Limiter(batch_size=64)
    limiter.tasks(*names(64))
    limiter.ready(5, boot="0")
    done: set[str] = set()
    poison_ids: list[str] = []
    deaths = 0
    for _ in range(200):
        handed = limiter.batches
        if not handed:
            break
        limiter.ready(5, *handed, boot=str(deaths))
        if any("t13" in ids_of(batch) for batch in handed):
            deaths += 1
            poison_ids += [
                i for deferred in of_type(m.Deferred, limiter.ready(5, boot=str(deaths))) for i in deferred.ids
            ]
        else:
            following: list[m.Batch] = []
            for batch in handed:
                done |= set(ids_of(batch))
                limiter.finished(batch, boot=str(deaths))
                following += limiter.batches
            limiter.batches = following
    assert poison_ids == ["t13"]
    assert deaths == 5
    assert done == set(names(64)) - {"t13"}
