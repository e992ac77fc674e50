"""The circuit breaker of the embedders: it opens when embedders die one after another, and a probe closes it."""

from __future__ import annotations

from common.failures.breaker import State
from common.wire import messages as m
from tests.rate_limiter.crashing import CrashingEmbedder
from tests.rate_limiter.limiter import Limiter, ids_of
from tests.samples import names


def broken(limiter: Limiter, deaths: int) -> CrashingEmbedder:
    """An embedder that has died this many times in a row, while many other tasks wait."""
    limiter.tasks(*names(1000))
    crashing = CrashingEmbedder(limiter)
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
    open_times = []
    for _ in range(8):
        began = limiter.now.mono
        while not limiter.batches:
            crashing.wait()
        open_times.append(limiter.now.mono - began)
        assert limiter.sizes == [1]
        assert limiter.batch.tasks[0].attempt == 1
        crashing.die()
    for open_time, whole in zip(open_times, (2, 4, 8, 16, 32, 60, 60, 60), strict=True):
        assert whole / 2 <= open_time <= whole + 1


def probing() -> tuple[Limiter, CrashingEmbedder, m.Batch]:
    """The first probe has been dispatched."""
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
