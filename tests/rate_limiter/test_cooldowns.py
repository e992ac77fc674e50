"""A provider cooldown that one embedder reports applies to all embedders; afterwards batches are full for a while."""

from __future__ import annotations

from typing import Any

from common.process.actions import Send
from common.wire import messages as m
from stages.rate_limiter.cooldowns import SAVE_REQUESTS_S
from tests import samples
from tests.decisions import START
from tests.rate_limiter.limiter import Limiter

UNTIL = START.wall + 20


def report(limiter: Limiter, embedder: str, until: float | None = None, free: int = 5, boot: str = "boot") -> list[Any]:
    provider_cooldowns = {} if until is None else {"openai": until}
    key_cooldowns = {} if until is None else {"*": until}
    ready = m.Ready(embedder, boot, f"ipc://{embedder}", free, [], key_cooldowns, provider_cooldowns)
    return limiter.did(limiter.state.on_ready(ready, limiter.now))


def cooldowns_sent(actions: list[Any]) -> dict[str, dict[str, float]]:
    sends = [(action.to, action.message) for action in actions if isinstance(action, Send)]
    return {
        to.removeprefix("ipc://"): message.until for to, message in sends if isinstance(message, m.ProviderCooldowns)
    }


def test_a_provider_cooldown_is_sent_once_to_all_other_embedders() -> None:
    limiter = Limiter()
    for embedder in ("embedder_00", "embedder_01", "embedder_02"):
        assert cooldowns_sent(report(limiter, embedder)) == {}
    expected = {"embedder_01": {"openai": UNTIL}, "embedder_02": {"openai": UNTIL}}
    assert cooldowns_sent(report(limiter, "embedder_00", UNTIL)) == expected
    assert cooldowns_sent(report(limiter, "embedder_00", UNTIL)) == {}
    assert cooldowns_sent(report(limiter, "embedder_01", UNTIL + 0.01)) == {}, (
        "an embedder that repeats the cooldown it received changes nothing"
    )
    assert set(cooldowns_sent(report(limiter, "embedder_02", UNTIL + 5))) == {"embedder_00", "embedder_01"}


def test_an_embedder_that_starts_during_a_cooldown_receives_it_and_a_later_one_does_not() -> None:
    limiter = Limiter()
    report(limiter, "embedder_00", UNTIL)
    assert cooldowns_sent(report(limiter, "embedder_01")) == {"embedder_01": {"openai": UNTIL}}
    assert cooldowns_sent(report(limiter, "embedder_01", boot="next boot")) == {"embedder_01": {"openai": UNTIL}}
    limiter.after(30)
    assert cooldowns_sent(report(limiter, "embedder_02")) == {}


def test_a_key_cooldown_of_one_embedder_is_not_shared() -> None:
    limiter = Limiter()
    for embedder, key_cooldowns in (("embedder_00", {"*": UNTIL}), ("embedder_01", {})):
        assert cooldowns_sent(limiter.ready(5, embedder=embedder, key_cooldowns=key_cooldowns)) == {}
    limiter.tasks("a")
    assert limiter.inboxes == ["ipc://embedder_01"]


def test_waiting_tasks_are_dispatched_in_full_batches_for_a_while_after_a_cooldown() -> None:
    limiter = Limiter(batch_size=100)
    report(limiter, "embedder_00", UNTIL)
    limiter.tasks(*samples.names(250))
    assert limiter.batches == []
    limiter.after(UNTIL - limiter.now.wall)
    report(limiter, "embedder_00", UNTIL)
    assert limiter.sizes == [100, 100, 50]
    limiter.after(SAVE_REQUESTS_S + 1)
    report(limiter, "embedder_00", free=5 + 3)
    limiter.tasks(*samples.names(50, "later"))
    assert limiter.sizes == [10] * 5


def test_a_cooldown_that_is_over_sends_no_waiting_task_back() -> None:
    limiter = Limiter(hold_seconds=60)
    limiter.ready(0, key_cooldowns={"*": START.wall - 5})
    done = limiter.tasks("a")
    assert limiter.waiting == ["a"]
    assert [action for action in done if isinstance(action, Send)] == []
