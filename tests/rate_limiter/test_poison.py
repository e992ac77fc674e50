"""Who is at fault when embedders die: no task for an embedder that is broken, and poison is found all the same."""

from __future__ import annotations

from typing import Any

import pytest

from common.failures.breaker import State
from common.process.actions import Instant
from common.wire import messages as m
from common.wire.timing import QUARANTINE_TRUSTED_S, SILENT_AFTER_S
from stages.rate_limiter.poison import ALONE_FROM_ATTEMPT, Quarantine
from tests.decisions import log_fields, of_type
from tests.rate_limiter.limiter import Limiter, ids_of
from tests.samples import names, task


class Crashing:
    """One embedder that dies of each batch in which `kills` finds a reason, and comes back at once."""

    def __init__(self, limiter: Limiter, kills: Any = lambda _: True) -> None:
        self.limiter = limiter
        self.kills = kills
        self.boot = 0
        self.given_up: list[str] = []
        self.done: set[str] = set()
        limiter.ready(1, boot="0")

    def die(self) -> list[Any]:
        """It had its batch, and is another one now."""
        batches = self.limiter.batches
        boot = str(self.boot)
        self.boot += 1
        self.limiter.ready(0, *batches, boot=boot)
        return self.hear(self.limiter.ready(1, boot=str(self.boot)))

    def hear(self, done: list[Any]) -> list[Any]:
        """As the fetcher does: what is given back is still pending, and sent again."""
        batches = list(self.limiter.batches)
        for told in of_type(m.Deferred, done):
            if told.reason == "poison":
                self.given_up += told.ids
            else:
                self.limiter.tasks(*told.ids)
                batches += self.limiter.batches
        self.limiter.batches = batches
        return done

    def wait(self) -> None:
        """It lives for a second, and has nothing."""
        self.hear(self.limiter.after(1.0).ready(1, boot=str(self.boot)))
        if not self.limiter.batches:
            self.hear(self.limiter.tick())

    def live(self, seconds: float) -> int:
        """Returns how often it died."""
        died = 0
        end = self.limiter.now.mono + seconds
        while self.limiter.now.mono < end:
            if not self.limiter.batches:
                self.wait()
                continue
            batch = self.limiter.batch
            self.limiter.after(0.1)
            if self.kills(ids_of(batch)):
                self.die()
                died += 1
            else:
                self.done.update(ids_of(batch))
                self.hear(self.limiter.finished(batch, boot=str(self.boot)))
        return died


def poison(*ids: str) -> Any:
    return lambda batch: bool(set(ids) & set(batch))


# ---- a broken embedder ----


def test_no_task_fails_while_embedders_die_for_a_reason_of_their_own() -> None:
    limiter = Limiter()
    limiter.tasks(*names(40))
    crashing = Crashing(limiter)
    crashing.live(3600)
    assert crashing.given_up == []
    crashing.kills = poison()
    crashing.live(100)
    assert crashing.done == set(names(40))
    assert limiter.state.owned == set()


def test_neither_of_the_only_two_tasks_fails_while_embedders_die_of_their_own() -> None:
    limiter = Limiter()
    limiter.tasks("a", "b")
    crashing = Crashing(limiter)
    crashing.live(3600)
    assert crashing.given_up == []


def test_deaths_in_a_long_row_do_not_raise_the_attempt_of_a_task() -> None:
    quarantine = Quarantine(5)
    both = [task("a"), task("b")]
    seen = []
    for number in range(30):
        again, given_up = quarantine.on_death("e0", [both[number % 2]], Instant(float(number), float(number)))
        assert given_up == []
        both[number % 2] = again[0]
        seen.append(again[0].attempt)
    assert seen[:10] == [2, 2, 3, 3, 4, 4, 5, 5, 5, 5]
    assert set(seen[10:]) == {ALONE_FROM_ATTEMPT}


def test_tasks_quarantined_before_the_last_finished_batch_do_not_fail_in_a_long_row_of_deaths() -> None:
    """What finished before a long row of deaths says nothing about who is at fault for it."""
    limiter = Limiter(batch_size=144)
    limiter.tasks(*names(12), "other")
    crashing = Crashing(limiter, poison(*names(12)))
    while "other" not in crashing.done:
        crashing.live(0.1)
    crashing.kills = lambda _: True
    crashing.live(3600)
    assert crashing.given_up == []
    crashing.kills = poison()
    crashing.live(100)
    assert crashing.done == {*names(12), "other"}


def test_a_task_without_evidence_is_retried_alone_on_its_last_attempt() -> None:
    limiter = Limiter()
    limiter.tasks("a", "b", attempt=4)
    crashing = Crashing(limiter)
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


# ---- poison ----


@pytest.mark.parametrize("neighbours", [0, 1, 40])
def test_a_poison_task_is_reported_after_the_last_allowed_dispatch(neighbours: int) -> None:
    limiter = Limiter()
    limiter.tasks("poison", *names(neighbours))
    crashing = Crashing(limiter, poison("poison"))
    assert crashing.live(60) == 5
    assert crashing.given_up == ["poison"]
    assert crashing.done == set(names(neighbours))


@pytest.mark.parametrize("number", [2, 3])
def test_several_poison_tasks_are_reported_soon_when_other_tasks_have_finished(number: int) -> None:
    killers = [f"poison{i}" for i in range(number)]
    limiter = Limiter(batch_size=64)
    limiter.tasks(*killers, *names(30))
    crashing = Crashing(limiter, poison(*killers))
    crashing.live(10)
    assert sorted(crashing.given_up) == killers
    assert crashing.done == set(names(30))
    limiter.tasks("next")
    assert ids_of(limiter.batch) == ["next"]


def test_poison_tasks_without_evidence_wait_until_another_task_is_finished() -> None:
    """As after a restart of the rate limiter: what it knew is gone."""
    limiter = Limiter()
    limiter.tasks("poison1", "poison2", attempt=3)
    crashing = Crashing(limiter, poison("poison1", "poison2"))
    crashing.live(600)
    assert crashing.given_up == []
    limiter.tasks("good")
    crashing.live(600)
    assert sorted(crashing.given_up) == ["poison1", "poison2"]
    assert crashing.done == {"good"}


def test_only_the_first_of_several_single_tasks_is_reported_while_the_embedder_is_broken() -> None:
    """One task a minute, and an embedder that is broken."""
    limiter = Limiter()
    crashing = Crashing(limiter)
    for name in names(5):
        limiter.tasks(name)
        crashing.live(60)
    assert crashing.given_up == ["t0"]


def test_a_batch_whose_finished_message_was_lost_is_evidence_too() -> None:
    limiter = Limiter()
    limiter.tasks("poison1", "poison2", attempt=4)
    crashing = Crashing(limiter, poison("poison1", "poison2"))
    crashing.die()
    crashing.die()
    batches = limiter.batches
    limiter.ready(0, *batches, m.HeldBatch("x", "", ["other"]), boot="2")
    limiter.ready(0, *batches, boot="2")
    limiter.batches = batches
    crashing.die()
    assert crashing.given_up == ["poison1"]


def test_batches_finished_by_other_embedders_are_not_evidence() -> None:
    limiter = Limiter()
    limiter.tasks("a", "b", attempt=4)
    crashing = Crashing(limiter)
    for number in range(4):
        batches = limiter.batches
        limiter.ready(0, m.HeldBatch(f"x{number}", "", ["other"]), embedder="embedder_01")
        limiter.ready(0, embedder="embedder_01")
        del limiter.state.fleet["embedder_01"]  # else it would get them, and acquit them
        limiter.batches = batches
        crashing.die()
    assert crashing.given_up == []


def test_the_last_task_is_tried_on_a_working_embedder_before_it_is_reported() -> None:
    limiter = Limiter()
    limiter.tasks("a", "b", attempt=4)
    crashing = Crashing(limiter)
    crashing.die()
    crashing.die()
    of_a = limiter.batches
    limiter.ready(1, embedder="embedder_01")
    assert ids_of(limiter.batch) == ["b"]
    limiter.finished(limiter.batch, embedder="embedder_01")
    limiter.batches = of_a
    crashing.die()
    assert crashing.given_up == []
    assert (limiter.inboxes, ids_of(limiter.batch)) == (["ipc://embedder_01"], ["a"])


def test_tasks_in_quarantine_are_tried_on_an_embedder_that_is_not_failing() -> None:
    limiter = Limiter()
    limiter.ready(1, embedder="broken", boot="0")
    limiter.tasks("suspect", attempt=3)
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
    limiter.tasks("suspect", attempt=3)
    assert limiter.inboxes == ["ipc://was broken"]


# ---- the pause ----


def broken(limiter: Limiter, deaths: int) -> Crashing:
    """Embedders have died so many times in a row; enough other tasks wait."""
    limiter.tasks(*names(1000))
    crashing = Crashing(limiter)
    for _ in range(deaths):
        crashing.die()
    return crashing


def test_the_breaker_stays_closed_after_five_deaths_in_a_row() -> None:
    limiter = Limiter()
    broken(limiter, 5)
    assert len(limiter.batches) == 1
    assert limiter.state.report(limiter.now).blockers == []


def test_the_breaker_opens_after_six_deaths_in_a_row() -> None:
    limiter = Limiter()
    broken(limiter, 6)
    assert limiter.batches == []
    (problem,) = limiter.state.report(limiter.now).blockers
    assert problem == "each of the last 6 batches killed its embedder: see the embedder's log"
    (change,) = limiter.state.quarantine.breaker.changes()
    assert (change.service, change.state) == ("embedder", State.OPEN)
    assert change.reason == "each batch kills its embedder: see the embedder's log"


def test_the_open_times_grow_to_a_minute_and_each_probe_is_one_task_not_in_quarantine() -> None:
    limiter = Limiter()
    crashing = broken(limiter, 6)
    pauses = []
    for _ in range(8):
        began = limiter.now.mono
        while not limiter.batches:
            crashing.wait()
        pauses.append(limiter.now.mono - began)
        assert limiter.sizes == [1]
        assert limiter.batch.tasks[0].attempt == 1
        crashing.die()
    for pause, whole in zip(pauses, (2, 4, 8, 16, 32, 60, 60, 60), strict=True):
        assert whole / 2 <= pause <= whole + 1


def probing() -> tuple[Limiter, Crashing, m.Batch]:
    """The first probe is on its way."""
    limiter = Limiter()
    crashing = broken(limiter, 6)
    while not limiter.batches:
        crashing.wait()
    return limiter, crashing, limiter.batch


def test_a_finished_probe_closes_the_breaker() -> None:
    limiter, _, batch = probing()
    limiter.ready(1, batch, boot="6")
    assert limiter.batches == []
    limiter.finished(batch, boot="6")
    assert len(limiter.batches) == 1
    assert limiter.state.report(limiter.now).blockers == []


def test_a_batch_finished_by_another_embedder_closes_the_breaker() -> None:
    limiter = Limiter()
    limiter.ready(0, m.HeldBatch("x", "", ["long"]), embedder="embedder_01")
    crashing = broken(limiter, 6)
    assert crashing.limiter.batches == []
    limiter.finished(m.Batch("x", "boot", "", "", []), embedder="embedder_01")
    assert len(limiter.batches) >= 1


def test_a_probe_that_never_reached_its_embedder_is_followed_by_another() -> None:
    limiter, crashing, lost = probing()
    for _ in range(10):
        if limiter.batches == [lost]:
            limiter.batches = []
        if limiter.batches:
            break
        crashing.wait()
    assert limiter.sizes == [1]
    assert limiter.batch.batch_id != lost.batch_id


def test_a_probe_whose_embedder_died_before_it_received_it_is_followed_by_another() -> None:
    limiter, crashing, lost = probing()
    limiter.ready(1, boot="7")
    crashing.boot = 7
    while not limiter.batches:
        crashing.wait()
    assert limiter.sizes == [1]
    assert limiter.batch.batch_id != lost.batch_id


def test_deaths_of_embedders_without_batches_do_not_open_the_breaker() -> None:
    limiter = Limiter()
    for boot in range(20):
        limiter.ready(1, boot=str(boot))
    limiter.tasks("a")
    assert ids_of(limiter.batch) == ["a"]


def test_deaths_with_batches_learnt_after_a_restart_open_the_breaker() -> None:
    limiter = Limiter()
    limiter.tasks(*names(1000))
    for boot in range(6):
        limiter.ready(0, m.HeldBatch(f"old-{boot}", "", ["x"]), boot=str(boot))
    limiter.ready(1, boot="6")
    assert limiter.batches == []


# ---- what may have been processed after all ----


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


# ---- what is remembered ----


def quarantine(limiter: Limiter) -> set[str]:
    return set(limiter.state.quarantine.cases)


def with_suspects(*ids: str) -> Limiter:
    limiter = Limiter()
    limiter.ready(1)
    limiter.tasks(*ids)
    limiter.ready(0, limiter.batch)
    limiter.ready(0, boot="another")
    assert quarantine(limiter) == set(ids)
    return limiter


def test_a_finished_task_leaves_the_quarantine() -> None:
    limiter = with_suspects("a")
    limiter.ready(1, boot="another")
    limiter.finished(limiter.batch, boot="another")
    assert quarantine(limiter) == set()


def test_a_deferred_task_leaves_the_quarantine() -> None:
    limiter = with_suspects("a", "b")
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
    limiter = with_suspects("a")
    limiter.ready(1, boot="another")
    for _ in range(3):
        limiter.after(1).ready(0, boot="another")
    assert limiter.waiting == ["a"]
    assert quarantine(limiter) == {"a"}


def test_evidence_from_one_embedder_counts_when_another_embedder_dies_last() -> None:
    """Others are done by the time, so the last ones that die have had nothing else to finish."""
    quarantine = Quarantine(5)
    poison, given_up = task("poison"), list[str]()
    for number, embedder in enumerate(["e0", "e1", "e0", "e1", "e0"]):
        again, given_up = quarantine.on_death(embedder, [poison], Instant(float(number), float(number)))
        if number == 1:
            quarantine.on_finished("e1", ["other"])
        poison = again[0] if again else poison
    assert (again, given_up) == ([], ["poison"])


def test_a_batch_finished_only_after_the_last_death_of_its_embedder_is_not_evidence() -> None:
    """It was broken too, and is mended now; the other is broken still."""
    quarantine = Quarantine(5)
    innocent, given_up = task("innocent"), list[str]()
    for number, embedder in enumerate(["e0", "e1", "e1", "e1", "e1"]):
        again, given_up = quarantine.on_death(embedder, [innocent], Instant(float(number), float(number)))
        if number == 1:
            quarantine.on_finished("e0", ["other"])
        innocent = again[0] if again else innocent
    assert (innocent.attempt, given_up) == (5, [])
