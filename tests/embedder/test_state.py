"""Which batches an embedder takes, and how long it keeps their results."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest

from common.process.actions import Send
from common.wire import messages as m
from common.wire.timing import DRAINING_INTERVAL_S, READY_INTERVAL_S
from stages.embedder.actions import BatchProcessed, ProcessBatch
from stages.embedder.state import RESEND, Embedder
from tests import samples
from tests.decisions import START, after, events, kinds, of_type, sent_to

BOOT = "boot"


class Working:
    """An embedder of two slots, with a clock that the test turns."""

    def __init__(self, slots: int = 2) -> None:
        self.state = Embedder("embedder_00", BOOT, "ipc://embedder_00", slots)
        self.now = START
        self.tick()

    def after(self, seconds: float) -> Working:
        self.now = after(seconds, self.now)
        return self

    def tick(self) -> list[Any]:
        return list(self.state.on_tick(self.now))

    def batch(self, batch_id: str, *ids: str, boot: str = BOOT) -> list[Any]:
        tasks = [samples.task(task_id) for task_id in ids]
        return list(self.state.on_batch(m.Batch(batch_id, boot, samples.TYPE, "model", tasks), self.now))

    def processed(self, batch_id: str, *ids: str, **fields: Any) -> list[Any]:
        results = [samples.result(task_id) for task_id in ids]
        return list(self.state.on_processed(BatchProcessed(batch_id, results, **fields), self.now))

    def stored(self, batch_id: str) -> list[Any]:
        return list(self.state.on_stored(m.Stored(batch_id), self.now))

    def drain(self) -> list[Any]:
        return list(self.state.on_drain(self.now))


def ready(actions: Iterable[Any]) -> m.Ready:
    (said,) = of_type(m.Ready, actions)
    return said


def finished(actions: Iterable[Any]) -> m.Finished:
    (said,) = of_type(m.Finished, actions)
    return said


def test_an_embedder_sends_ready_at_its_first_tick() -> None:
    state = Embedder("embedder_07", BOOT, "ipc://embedder_07", 3)
    said = ready(state.on_tick(START))
    assert (said.embedder, said.boot_id, said.inbox) == ("embedder_07", BOOT, "ipc://embedder_07")
    assert (said.free, said.held, said.key_cooldowns) == (3, [], {})


def test_an_embedder_sends_ready_every_second() -> None:
    embedder = Working()
    assert of_type(m.Ready, embedder.after(READY_INTERVAL_S - 0.1).tick()) == []
    assert len(of_type(m.Ready, embedder.after(0.1).tick())) == 1
    assert of_type(m.Ready, embedder.after(0.1).tick()) == []


def test_ready_names_the_batch_keys_that_the_provider_cannot_serve() -> None:
    embedder = Working()
    embedder.state.key_cooldowns = {"model": 5.0}
    assert ready(embedder.after(1).tick()).key_cooldowns == {"model": 5.0}


def test_a_batch_is_processed_at_once() -> None:
    embedder = Working()
    actions = embedder.batch("b1", "a", "b")
    (process,) = of_type(ProcessBatch, actions)
    assert [task.id for task in process.batch.tasks] == ["a", "b"]
    assert "batch_started" in events(actions)


def test_ready_names_a_new_batch_before_it_is_processed() -> None:
    """If the batch kills the embedder within a second, the rate limiter must know which batch that was."""
    actions = Working().batch("b1", "a", "b")
    assert kinds(actions) == ["Ready", "ProcessBatch"]
    said = ready(actions)
    assert [(held.batch_id, held.key, held.ids) for held in said.held] == [("b1", "model", ["a", "b"])]
    assert said.free == 1


def test_a_batch_for_an_earlier_boot_is_ignored() -> None:
    embedder = Working()
    assert embedder.batch("b1", "a", boot="earlier") == []
    assert embedder.state.slots == {}


def test_a_batch_that_arrives_twice_is_processed_once() -> None:
    embedder = Working()
    embedder.batch("b1", "a")
    assert embedder.batch("b1", "a") == []
    embedder.processed("b1", "a")
    assert embedder.batch("b1", "a") == []


def test_results_go_to_the_publisher_with_the_inbox_to_reply_to() -> None:
    embedder = Working()
    embedder.batch("b1", "a", "b")
    (results,) = sent_to("publisher", embedder.processed("b1", "a", "b"))
    assert results == m.Results("b1", "ipc://embedder_00", [samples.result("a"), samples.result("b")], BOOT)


def test_a_finished_batch_keeps_its_slot_until_it_is_stored() -> None:
    embedder = Working()
    embedder.batch("b1", "a")
    embedder.processed("b1", "a")
    said = ready(embedder.after(1).tick())
    assert said.free == 1
    assert [held.ids for held in said.held] == [["a"]]


def test_results_are_sent_again_with_growing_pauses_until_they_are_stored() -> None:
    embedder = Working()
    embedder.batch("b1", "a")
    embedder.processed("b1", "a")
    times = [step / 10 for step in range(400) if of_type(m.Results, embedder.after(0.1).tick())]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 0.4 <= times[0] <= RESEND.first
    assert max(pauses) <= RESEND.longest + 0.11
    assert pauses[-1] >= RESEND.longest / 2
    embedder.stored("b1")
    for _ in range(200):
        assert of_type(m.Results, embedder.after(0.1).tick()) == []


def test_a_running_batch_sends_no_results() -> None:
    embedder = Working()
    embedder.batch("b1", "a")
    assert of_type(m.Results, embedder.after(60).tick()) == []


def test_a_stored_batch_is_finished_and_frees_its_slot() -> None:
    embedder = Working()
    embedder.batch("b1", "a")
    embedder.processed("b1", "a", tokens=7, requests=2, uncharged=1)
    actions = embedder.stored("b1")
    assert kinds(actions) == ["Finished", "Ready"]
    said = finished(actions)
    assert (said.embedder, said.boot_id, said.batch_id) == ("embedder_00", BOOT, "b1")
    assert (said.tokens, said.requests, said.deferred, said.unsent, said.uncharged) == (7, 2, [], False, 1)
    assert (ready(actions).free, ready(actions).held) == (2, [])


def test_a_stored_that_is_early_repeated_or_for_an_unknown_batch_is_ignored() -> None:
    embedder = Working()
    embedder.batch("b1", "a")
    assert embedder.stored("b1") == []  # it still runs
    embedder.processed("b1", "a")
    embedder.stored("b1")
    assert embedder.stored("b1") == []
    assert embedder.stored("unknown") == []


def test_deferred_tasks_are_returned_when_the_rest_of_their_batch_is_stored() -> None:
    embedder = Working()
    embedder.batch("b1", "a", "b")
    assert of_type(m.Finished, embedder.processed("b1", "a", deferred=["b"], until=9.0, unsent=True)) == []
    said = finished(embedder.stored("b1"))
    assert (said.deferred, said.until, said.unsent) == (["b"], 9.0, True)


def test_a_batch_without_results_is_returned_at_once() -> None:
    embedder = Working()
    embedder.batch("b1", "a")
    actions = embedder.processed("b1", deferred=["a"], until=9.0)
    assert kinds(actions) == ["Finished", "Ready"]
    assert (finished(actions).deferred, ready(actions).free) == (["a"], 2)


def test_more_batches_than_slots_leave_none_free() -> None:
    embedder = Working(slots=1)
    embedder.batch("b1", "a")
    assert ready(embedder.batch("b2", "b")).free == 0


def test_a_draining_embedder_says_at_once_that_it_has_no_free_slot() -> None:
    embedder = Working()
    embedder.batch("b1", "a")
    said = ready(embedder.drain())
    assert said.free == 0
    assert [held.batch_id for held in said.held] == ["b1"]


def test_a_batch_that_arrives_during_a_drain_is_returned_unsent() -> None:
    embedder = Working()
    embedder.drain()
    actions = embedder.batch("b1", "a", "b")
    assert kinds(actions) == ["Finished"]
    said = finished(actions)
    assert (said.batch_id, said.deferred, said.unsent, said.requests) == ("b1", ["a", "b"], True, 0)
    assert said.until <= embedder.now.wall
    assert embedder.state.slots == {}


def test_an_embedder_is_drained_when_all_its_results_are_stored() -> None:
    embedder = Working()
    embedder.batch("b1", "a")
    embedder.drain()
    assert not embedder.state.is_drained(embedder.now)
    embedder.processed("b1", "a")
    assert not embedder.state.is_drained(embedder.now)
    embedder.stored("b1")
    assert embedder.state.is_drained(embedder.now)


def test_the_report_counts_running_and_unstored_batches_and_shows_blockers() -> None:
    embedder = Working()
    embedder.state.facts = {"mode": "mock"}
    embedder.state.blockers = ["no key"]
    embedder.batch("b1", "a")
    embedder.batch("b2", "b")
    embedder.processed("b1", "a")
    report = embedder.state.report(embedder.now)
    assert report.facts == {"mode": "mock", "running": 1, "unstored": 1}
    assert report.blockers == ["no key"]


def test_a_draining_embedder_tells_the_publisher_until_it_is_drained() -> None:
    embedder = Working()
    embedder.batch("b1", "a")
    assert sent_to("publisher", embedder.drain()) == [m.Draining("embedder_00", BOOT)]
    assert sent_to("publisher", embedder.after(DRAINING_INTERVAL_S / 2).tick()) == []
    assert sent_to("publisher", embedder.after(DRAINING_INTERVAL_S / 2).tick()) == [m.Draining("embedder_00", BOOT)]
    embedder.processed("b1", "a")
    embedder.stored("b1")
    assert embedder.state.is_drained(embedder.now)
    assert list(embedder.state.on_drained(embedder.now)) == [
        Send("publisher", m.Draining("embedder_00", BOOT, done=True))
    ]


def test_an_embedder_that_is_not_draining_sends_no_draining_message() -> None:
    embedder = Working()
    assert sent_to("publisher", [*embedder.tick(), *embedder.after(60).tick()]) == []


def test_the_time_since_a_batch_reached_the_provider_is_told_only_if_it_did() -> None:
    embedder = Working()
    embedder.batch("b1", "a")
    embedder.batch("b2", "b")
    embedder.after(7)
    assert finished(embedder.processed("b1", reached_at=START.mono + 2.0)).reached_ago_s == 5.0
    assert finished(embedder.processed("b2")).reached_ago_s == 0.0


def test_what_is_returned_during_a_drain_costs_nothing() -> None:
    embedder = Working()
    embedder.drain()
    told = finished(embedder.batch("b1", "a", "b"))
    assert told == m.Finished("embedder_00", BOOT, "b1", 0, 0, ["a", "b"], embedder.now.wall, unsent=True)


@pytest.mark.parametrize("boot", ["aaaa", "zzzz", ""])
def test_a_batch_for_any_other_boot_is_not_taken(boot: str) -> None:
    assert Working().batch("b1", "a", boot=boot) == []


def test_a_longer_cooldown_is_told_at_once_and_the_same_one_again_is_not() -> None:
    embedder = Working()
    embedder.state.provider_cooldowns = {"openai": START.wall + 20.0}
    assert ready(embedder.after(0.1).tick()).provider_cooldowns == {"openai": START.wall + 20.0}
    assert of_type(m.Ready, embedder.after(0.1).tick()) == []
    embedder.state.provider_cooldowns = {"openai": START.wall + 30.0}
    assert ready(embedder.after(0.1).tick()).provider_cooldowns == {"openai": START.wall + 30.0}
