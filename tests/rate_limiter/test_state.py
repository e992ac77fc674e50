"""What the rate limiter dispatches: which tasks, in which batches, to which embedder."""

from __future__ import annotations

import pytest

from common.wire import messages as m
from common.wire.timing import LEARNING_S
from stages.rate_limiter.actions import PutQuota
from tests.decisions import kinds, of_type, sent_to
from tests.rate_limiter.limiter import PER_MINUTE, REQUESTS_PER_MINUTE, Limiter, ids_of
from tests.samples import names


def test_a_task_goes_to_the_embedder_that_has_a_free_slot() -> None:
    limiter = Limiter()
    limiter.ready(1)
    limiter.tasks("a", key="model")
    batch = limiter.batch
    assert limiter.inboxes == ["ipc://embedder_00"]
    assert (batch.boot_id, batch.type, batch.key, ids_of(batch)) == ("boot", "text_embedding", "model", ["a"])


def test_a_task_without_an_embedder_is_dispatched_when_one_reports_ready() -> None:
    limiter = Limiter()
    limiter.tasks("a")
    assert limiter.batches == []
    limiter.ready(1)
    assert ids_of(limiter.batch) == ["a"]


def test_a_task_without_a_free_slot_is_dispatched_when_a_batch_is_finished() -> None:
    limiter = Limiter()
    limiter.ready(1)
    limiter.tasks("a")
    first = limiter.batch
    limiter.tasks("b")
    assert limiter.batches == []
    limiter.finished(first)
    assert ids_of(limiter.batch) == ["b"]


def test_a_batch_and_its_charge_are_stored_and_sent_in_the_same_turn() -> None:
    limiter = Limiter({PER_MINUTE: 10})
    limiter.ready(1)
    assert kinds(limiter.tasks("a", "b")) == ["Holding", "Batch", "PutQuota"]
    assert limiter.used() == 2


def test_a_turn_without_a_batch_stores_no_quota_windows() -> None:
    limiter = Limiter()
    limiter.ready(0)
    assert of_type(PutQuota, limiter.tasks("a")) == []


def test_batch_ids_are_unique_and_contain_the_boot_id_of_the_rate_limiter() -> None:
    limiter = Limiter(batch_size=1)
    limiter.ready(3)
    limiter.tasks("a", "b", "c")
    assert len({batch.batch_id for batch in limiter.batches}) == 3
    assert all(batch.batch_id.startswith("limiterb") for batch in limiter.batches)


def test_waiting_tasks_are_divided_evenly_among_the_free_slots() -> None:
    limiter = Limiter()
    limiter.ready(4)
    limiter.tasks(*names(10))
    assert limiter.sizes == [3, 3, 2, 2]


def test_no_batch_is_larger_than_the_configured_batch_size() -> None:
    limiter = Limiter(batch_size=4)
    limiter.ready(2)
    limiter.tasks(*names(20))
    assert limiter.sizes == [4, 4]
    assert limiter.waiting == names(20)[8:]


def test_slots_whose_key_is_in_a_cooldown_do_not_divide_the_waiting_tasks() -> None:
    limiter = Limiter()
    limiter.ready(3, embedder="embedder_01", key_cooldowns={"model": limiter.now.wall + 30})
    limiter.ready(1)
    limiter.tasks(*names(8), key="model")
    assert limiter.sizes == [8]


def test_the_embedder_with_most_free_slots_gets_the_first_batch() -> None:
    limiter = Limiter(batch_size=1)
    limiter.ready(1)
    limiter.ready(3, embedder="embedder_01")
    limiter.tasks(*names(4))
    assert limiter.inboxes.count("ipc://embedder_01") == 3
    assert limiter.inboxes[0] == "ipc://embedder_01"


def test_only_tasks_of_one_type_and_key_share_a_batch() -> None:
    limiter = Limiter()
    limiter.tasks("a", "b", key="small")
    limiter.tasks("c", key="large")
    limiter.ready(3)
    assert [(batch.key, ids_of(batch)) for batch in limiter.batches] == [
        ("small", ["a"]), ("small", ["b"]), ("large", ["c"]),
    ]  # fmt: skip


def test_batch_keys_take_turns_when_slots_become_free_one_at_a_time() -> None:
    limiter = Limiter(batch_size=1)
    for key in ("a", "b", "c"):
        limiter.tasks(*names(5, key), key=key)
    limiter.ready(1)
    order = []
    for _ in range(9):
        order.append(limiter.batch.key)
        limiter.finished(limiter.batch)
    assert order == list("abc") * 3


def test_a_task_that_is_received_twice_is_processed_once() -> None:
    limiter = Limiter()
    limiter.tasks("a", "a")
    limiter.tasks("a", "b")
    assert limiter.waiting == ["a", "b"]
    limiter.ready(1)
    limiter.tasks("a")
    assert limiter.batches == []


def test_a_finished_task_that_is_received_again_is_dispatched_again() -> None:
    limiter = Limiter()
    limiter.ready(1)
    limiter.tasks("a")
    limiter.finished(limiter.batch)
    limiter.tasks("a")
    assert ids_of(limiter.batch) == ["a"]


def test_nothing_is_dispatched_before_the_inventory_is_complete() -> None:
    limiter = Limiter(learnt=False)
    limiter.tasks("a", "b")
    limiter.ready(5)
    assert limiter.batches == []
    limiter.after(LEARNING_S - 0.1).ready(4, m.HeldBatch("old-1", "model", ["b"]), embedder="embedder_01")
    assert limiter.batches == []
    limiter.after(0.1).tick()
    assert [ids_of(batch) for batch in limiter.batches] == [["a"]]


def test_the_learning_time_is_longer_than_the_interval_between_two_ready_messages() -> None:
    assert LEARNING_S > 1.0 + 0.1 + 0.05  # the interval of `Ready`, a tick, and the reconnect interval


def test_a_key_in_a_cooldown_waits_while_other_keys_are_dispatched() -> None:
    limiter = Limiter()
    limiter.ready(2, key_cooldowns={"down": limiter.now.wall + 30})
    limiter.tasks("a", key="down")
    limiter.tasks("b", key="up")
    assert [batch.key for batch in limiter.batches] == ["up"]
    assert limiter.waiting == ["a"]


@pytest.mark.parametrize("cooling", ["down", "*"])
def test_tasks_of_a_key_are_dispatched_when_its_cooldown_is_over(cooling: str) -> None:
    limiter = Limiter()
    limiter.ready(2, key_cooldowns={cooling: limiter.now.wall + 1.5})
    limiter.tasks("a", key="down")
    limiter.live(1)
    assert limiter.batches == []
    limiter.live(1)
    assert limiter.batch.key == "down"


def test_a_cooldown_of_the_key_star_applies_to_every_key() -> None:
    limiter = Limiter()
    limiter.ready(2, key_cooldowns={"*": limiter.now.wall + 30})
    limiter.tasks("a", key="any")
    assert limiter.batches == []


def test_a_key_in_a_cooldown_goes_to_an_embedder_without_that_cooldown() -> None:
    limiter = Limiter()
    limiter.ready(5, key_cooldowns={"model": limiter.now.wall + 30})
    limiter.ready(1, embedder="embedder_01")
    limiter.tasks("a", key="model")
    assert limiter.inboxes == ["ipc://embedder_01"]


def test_a_batch_that_its_embedder_has_not_yet_reported_takes_one_of_its_slots() -> None:
    limiter = Limiter(batch_size=1)
    limiter.ready(2)
    limiter.tasks("a", "b", "c")
    assert len(limiter.batches) == 2
    limiter.ready(2)  # sent before the batches arrived
    assert limiter.batches == []


def test_a_batch_that_its_embedder_reports_does_not_take_a_second_slot() -> None:
    limiter = Limiter(batch_size=1)
    limiter.ready(3)
    limiter.tasks("a")
    first = limiter.batch
    limiter.ready(2, first)
    limiter.tasks("b", "c", "d")
    assert len(limiter.batches) == 2


def test_a_finished_batch_frees_its_slot_at_once() -> None:
    limiter = Limiter(batch_size=1)
    limiter.ready(1)
    limiter.tasks(*names(3))
    done = []
    for _ in range(3):
        done.append(limiter.batch)
        limiter.finished(limiter.batch)
    assert [ids_of(batch) for batch in done] == [["t0"], ["t1"], ["t2"]]


def test_the_inventory_is_sent_after_every_third_of_a_lease() -> None:
    limiter = Limiter(lease_seconds=3.0, batch_size=1)
    limiter.ready(1)
    limiter.tasks("a", "b")
    batch = limiter.batch
    assert sent_to("fetcher", limiter.tick()) == [m.Holding("rate_limiter", ["b"], ["a"], inventory_complete=True)]
    assert of_type(m.Holding, limiter.after(0.9).tick()) == []
    limiter.ready(0, batch, m.HeldBatch("other", "", ["c"]))
    assert of_type(m.Holding, limiter.after(0.1).tick()) == [m.Holding("rate_limiter", ["b"], ["a", "c"])]


def test_an_empty_inventory_is_sent_too_so_that_the_fetcher_knows_the_rate_limiter_lives() -> None:
    limiter = Limiter(learnt=False)
    assert sent_to("fetcher", limiter.tick()) == [m.Holding("rate_limiter", [], [])]
    assert of_type(m.Holding, limiter.live(5, 0.1)) == [
        m.Holding("rate_limiter", [], [], inventory_complete=True),
    ]
    assert of_type(m.Holding, limiter.live(5, 0.1)) == [m.Holding("rate_limiter", [], [])]


def test_the_first_inventory_after_the_learning_time_is_marked_as_complete() -> None:
    limiter = Limiter(learnt=False)
    limiter.ready(0, m.HeldBatch("x", "", ["a"]))
    limiter.tasks("b")
    limiter.tick()
    assert of_type(m.Holding, limiter.after(LEARNING_S - 0.1).tick()) == []
    assert of_type(m.Holding, limiter.after(0.1).tick()) == [
        m.Holding("rate_limiter", ["b"], ["a"], inventory_complete=True)
    ]
    assert not any(holding.inventory_complete for holding in of_type(m.Holding, limiter.live(600)))


def test_an_inventory_after_a_pause_of_the_process_is_not_marked_as_complete_again() -> None:
    limiter = Limiter()
    limiter.tick()
    assert [holding.inventory_complete for holding in of_type(m.Holding, limiter.after(60).tick())] == [False]


def test_an_inventory_that_lists_the_tasks_as_embedding_is_sent_before_their_batch() -> None:
    """If it is killed in between, the fetcher must not believe that the tasks still wait in the rate limiter."""
    limiter = Limiter()
    limiter.tasks("a", "b", "c")
    done = limiter.ready(2)
    assert [holding.embedding for holding in of_type(m.Holding, done)] == [["a", "b"], ["c"]]
    assert kinds(done) == ["Holding", "Batch", "Holding", "Batch", "PutQuota"]


def test_no_batch_is_dispatched_while_draining() -> None:
    limiter = Limiter()
    limiter.tasks("a")
    assert list(limiter.state.on_drain(limiter.now)) == []
    limiter.ready(1)
    assert limiter.batches == []


def test_the_report_counts_waiting_and_embedding_tasks_and_names_the_blocker() -> None:
    limiter = Limiter({PER_MINUTE: 1}, models={"small": {PER_MINUTE: 2}}, hold_seconds=100)
    assert limiter.state.report(limiter.now).blockers == ["no embedder has reported ready"]
    limiter.ready(1)
    limiter.tasks("a", "b", "c", key="small")
    report = limiter.state.report(limiter.now)
    assert report.facts == {"waiting": 2, "embedding": 1}
    assert report.blockers == ["waiting for a quota: 1 tasks a minute"]
    assert [(w.scope, w.unit, w.period, w.current, w.limit, w.remaining) for w in report.windows] == [
        ("", "tasks", "minute", 1, 1, 0),
        ("small", "tasks", "minute", 1, 2, 1),
    ]


def test_a_used_up_request_quota_is_not_a_blocker() -> None:
    limiter = Limiter({REQUESTS_PER_MINUTE: 1})
    limiter.ready(1)
    limiter.tasks("a")
    assert limiter.state.report(limiter.now).blockers == []
