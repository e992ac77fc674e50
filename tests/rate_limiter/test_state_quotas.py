"""What the rate limiter does with the quotas: it holds tasks, defers them, charges and refunds."""

from __future__ import annotations

from typing import Any

import pytest

from common.wire import messages as m
from stages.rate_limiter.actions import PutQuota
from stages.rate_limiter.state import NEVER_FITS_RETRY_S
from tests import samples
from tests.decisions import counted, events, log_fields, of_type
from tests.rate_limiter.limiter import PER_HOUR, PER_MINUTE, TOKENS_PER_MINUTE, Limiter, ids_of
from tests.samples import names


def test_tasks_beyond_the_rest_of_a_quota_wait() -> None:
    limiter = Limiter({PER_MINUTE: 10}, hold_seconds=100)
    limiter.ready(1)
    limiter.tasks(*names(20))
    assert limiter.sizes == [10]
    limiter.finished(limiter.batch)
    assert limiter.batches == []
    assert limiter.waiting == names(20)[10:]


def test_a_waiting_task_is_dispatched_as_soon_as_its_quota_allows() -> None:
    limiter = Limiter({PER_MINUTE: 2}, hold_seconds=100)
    limiter.ready(5)
    limiter.tasks(*names(4))
    assert [ids_of(batch) for batch in limiter.batches] == [["t0"], ["t1"]]
    handed = limiter.batches
    for _ in range(62):
        limiter.after(1.0).ready(3, *handed)
        if limiter.batches:
            break
        limiter.tick()
    assert [ids_of(batch) for batch in limiter.batches] == [["t2"], ["t3"]]


def test_tasks_whose_quota_opens_after_hold_seconds_go_back_to_the_api() -> None:
    limiter = Limiter({PER_HOUR: 1}, hold_seconds=60)
    limiter.ready(2)
    assert of_type(m.Deferred, limiter.tasks("a", "b", "c")) == []
    assert ids_of(limiter.batch) == ["a"]
    done = limiter.finished(limiter.batch)
    (deferred,) = of_type(m.Deferred, done)
    assert (deferred.ids, deferred.reason, deferred.key) == (["b", "c"], "quota", "*")
    assert 3600 <= deferred.until - limiter.now.wall <= 3660
    assert log_fields("tasks_deferred", done)["task_ids"] == ["b", "c"]
    assert limiter.waiting == []


def test_a_task_that_was_deferred_can_be_received_again() -> None:
    limiter = Limiter({PER_HOUR: 1})
    limiter.ready(2)
    limiter.tasks("a", "b")
    limiter.finished(limiter.batch)
    assert [deferred.ids for deferred in of_type(m.Deferred, limiter.tasks("b"))] == [["b"]]


@pytest.mark.parametrize("refunded", [{"uncharged": 1}, {"deferred": ["a"], "unsent": True}])
def test_tasks_are_not_deferred_while_a_dispatched_batch_may_still_be_refunded(refunded: dict[str, Any]) -> None:
    limiter = Limiter({PER_HOUR: 1})
    limiter.ready(2)
    assert of_type(m.Deferred, limiter.tasks("a", "b")) == []
    done = limiter.finished(limiter.batch, requests=0, tokens=0, **refunded)
    assert ids_of(limiter.batch) == ["b"]
    assert [deferred.ids for deferred in of_type(m.Deferred, done)] == [
        ids for ids in [refunded.get("deferred")] if ids
    ]


def test_the_quota_of_a_model_defers_that_model_only() -> None:
    limiter = Limiter({PER_HOUR: 10}, models={"small": {PER_HOUR: 1}})
    limiter.ready(5)
    limiter.tasks("a", "b", key="small")
    done = limiter.finished(limiter.batch)
    assert [(deferred.ids, deferred.key) for deferred in of_type(m.Deferred, done)] == [(["b"], "small")]
    limiter.tasks("c", key="large")
    assert ids_of(limiter.batch) == ["c"]


def test_a_model_that_waits_for_its_own_quota_does_not_block_other_models() -> None:
    limiter = Limiter({PER_MINUTE: 10}, models={"small": {PER_MINUTE: 1}}, hold_seconds=100)
    limiter.ready(5)
    limiter.tasks("a", "b", key="small")
    limiter.tasks("c", key="large")
    assert ids_of(limiter.batch) == ["c"]
    assert limiter.waiting == ["b"]


def test_tasks_whose_provider_cooldown_is_longer_than_hold_seconds_go_back_to_the_api() -> None:
    limiter = Limiter(hold_seconds=60)
    until = limiter.now.wall + 61
    limiter.ready(2, key_cooldowns={"down": until})
    limiter.ready(2, key_cooldowns={"*": until + 5}, embedder="embedder_01")
    done = limiter.tasks("a", "b", key="down")
    assert of_type(m.Deferred, done) == [m.Deferred(["a", "b"], until, "provider", "down")]
    assert limiter.waiting == []


@pytest.mark.parametrize("pause", [60, 0])
def test_tasks_whose_provider_cooldown_is_short_wait(pause: float) -> None:
    limiter = Limiter(hold_seconds=60)
    limiter.ready(0, key_cooldowns={"down": limiter.now.wall + pause})
    assert of_type(m.Deferred, limiter.tasks("a", key="down")) == []
    assert limiter.waiting == ["a"]


def test_tasks_wait_while_one_embedder_has_no_cooldown_for_their_provider() -> None:
    limiter = Limiter()
    limiter.ready(1, key_cooldowns={"down": limiter.now.wall + 999})
    limiter.ready(0, embedder="embedder_01")
    assert of_type(m.Deferred, limiter.tasks("a", key="down")) == []


def test_tasks_wait_while_there_is_no_embedder() -> None:
    limiter = Limiter()
    assert of_type(m.Deferred, limiter.tasks("a")) == []
    assert limiter.waiting == ["a"]


def test_tasks_that_exceed_a_token_limit_are_deferred_and_do_not_block_others() -> None:
    limiter = Limiter({TOKENS_PER_MINUTE: 100})
    limiter.ready(1)
    done = limiter.state.on_tasks(
        m.Tasks([limited for name in "abc" for limited in (task(f"huge {name}", 101), task(name, 10))]), limiter.now
    )
    done = limiter.did(done)
    assert ids_of(limiter.batch) == ["a", "b", "c"]
    until = limiter.now.wall + NEVER_FITS_RETRY_S
    assert of_type(m.Deferred, done) == [m.Deferred([f"huge {name}"], until, "quota") for name in "abc"]
    assert events(done) == ["task_exceeds_token_quota"] * 3
    assert limiter.waiting == []


def task(task_id: str, tokens: int) -> m.Task:
    return samples.task(task_id, tokens=tokens)


def test_a_window_that_starts_to_block_tasks_is_counted_once() -> None:
    limiter = Limiter({PER_MINUTE: 1}, hold_seconds=100)
    limiter.ready(5)
    limiter.tasks("spent")
    done = limiter.tasks("a", key="small")
    done += limiter.tasks("b", key="large")
    done += limiter.live(20)
    assert counted("rate_limit_exceeded_total", done) == [(("minute",), 1)]


def test_a_window_that_blocks_tasks_after_it_was_open_is_counted_again() -> None:
    limiter = Limiter({PER_MINUTE: 1}, hold_seconds=100)
    limiter.ready(5)
    done = limiter.tasks("spent") + limiter.finished(limiter.batch) + limiter.tasks("a")
    for _ in range(70):
        done += limiter.after(1).ready(5)
        for batch in limiter.batches:
            done += limiter.finished(batch)
    done += limiter.tasks("b")
    assert counted("rate_limit_exceeded_total", done) == [(("minute",), 1)] * 2


# ---- how the charge of a batch is settled ----


def charged(*ids: str, tokens: int = 5) -> tuple[Limiter, m.Batch]:
    limiter = Limiter({PER_MINUTE: 100, TOKENS_PER_MINUTE: 1000})
    limiter.ready(1)
    limiter.tasks(*ids, tokens=tokens)
    assert (limiter.used(), limiter.used(TOKENS_PER_MINUTE)) == (len(ids), tokens * len(ids))
    return limiter, limiter.batch


def test_reserved_tokens_are_settled_to_what_the_provider_reports() -> None:
    limiter, batch = charged("a", "b")
    assert of_type(PutQuota, limiter.finished(batch, tokens=4)) == [PutQuota()]
    assert (limiter.used(), limiter.used(TOKENS_PER_MINUTE)) == (2, 4)


def test_tasks_that_were_certainly_not_sent_are_refunded() -> None:
    limiter, batch = charged("a", "b", "c")
    limiter.finished(batch, tokens=5, deferred=["b", "c"], until=0.0, unsent=True)
    assert (limiter.used(), limiter.used(TOKENS_PER_MINUTE)) == (1, 5)


def test_tasks_that_may_have_been_sent_stay_charged() -> None:
    limiter, batch = charged("a", "b", "c")
    limiter.finished(batch, tokens=5, deferred=["b", "c"], until=0.0)
    assert limiter.used() == 3


def test_tasks_answered_by_the_cache_are_refunded() -> None:
    limiter, batch = charged("a", "b", "c")
    limiter.finished(batch, tokens=5, uncharged=2)
    assert (limiter.used(), limiter.used(TOKENS_PER_MINUTE)) == (1, 5)


def test_a_batch_of_which_nothing_was_sent_is_refunded_completely() -> None:
    limiter, batch = charged("a", "b")
    limiter.finished(batch, tokens=0, requests=0, deferred=["a", "b"], until=0.0, unsent=True)
    assert (limiter.used(), limiter.used(TOKENS_PER_MINUTE)) == (0, 0)


def test_a_batch_is_settled_once() -> None:
    limiter, batch = charged("a", "b")
    limiter.finished(batch, tokens=4)
    assert limiter.finished(batch, tokens=4) == []
    assert limiter.used(TOKENS_PER_MINUTE) == 4


def test_a_batch_whose_embedder_died_stays_charged() -> None:
    limiter, batch = charged("a", "b")
    limiter.ready(0, batch)
    limiter.ready(0, boot="another")
    assert limiter.used() == 2


def test_tasks_that_an_embedder_deferred_go_back_with_their_time_and_can_be_received_again() -> None:
    limiter, batch = charged("a", "b")
    until = limiter.now.wall + 7
    done = limiter.finished(batch, deferred=["b"], until=until)
    assert of_type(m.Deferred, done) == [m.Deferred(["b"], until, "provider")]
    assert log_fields("tasks_deferred", done) == {"level": "info", "reason": "provider", "until": until, "task_id": "b"}
    limiter.tasks("b")
    assert ids_of(limiter.batch) == ["b"]


def test_a_waiting_task_leaves_exactly_when_its_quota_opens() -> None:
    limiter = Limiter({PER_MINUTE: 1}, hold_seconds=100)
    limiter.ready(5)
    limiter.tasks("a")
    limiter.finished(limiter.batch)
    opens_at = limiter.quotas.opens_at("small", 5, limiter.now.wall)
    limiter.after(opens_at - limiter.now.wall - 0.5)
    limiter.tick()
    limiter.ready(5)
    limiter.tasks("b")
    assert limiter.batches == []
    limiter.after(0.49).tick()
    assert limiter.batches == []
    limiter.after(0.011).tick()
    assert ids_of(limiter.batch) == ["b"]
