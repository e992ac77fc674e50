"""Until when the requests of a batch may be sent, and what happens to a batch that comes back unsent."""

from __future__ import annotations

from common.settings.model_limits import Strategy
from common.wire import messages as m
from common.wire.timing import REACHED_WITHIN_S, SENT_WITHIN_S
from stages.rate_limiter.charging import Charging
from stages.rate_limiter.quota.buckets import AHEAD, SECONDS, Period, RollingBuckets
from stages.rate_limiter.quota.quotas import Quotas
from tests import samples
from tests.decisions import START
from tests.rate_limiter.limiter import PER_HOUR, PER_MINUTE, Limiter, ids_of


def charge(strategy: Strategy, limits: dict[object, int]) -> m.Charge:
    quotas = Quotas(limits, {}, strategy)  # type: ignore[arg-type]
    return Charging(quotas).charge("small", [samples.task("a")], 1, START)


def test_a_charge_covers_what_is_sent_within_its_bound() -> None:
    assert charge(Strategy.ROLLING, {PER_MINUTE: 10}).send_by == START.mono + SENT_WITHIN_S
    assert charge(Strategy.ROLLING, {}).send_by == 0, "without a quota there is nothing to cover"


def test_a_charge_of_a_calendar_period_covers_nothing_that_is_sent_after_it() -> None:
    left = 60 - START.wall % 60
    assert charge(Strategy.FIXED, {PER_MINUTE: 10}).send_by == START.mono + min(SENT_WITHIN_S, left)
    assert charge(Strategy.FIXED, {PER_HOUR: 10}).send_by <= START.mono + SENT_WITHIN_S


def test_the_rings_have_room_for_a_charge_that_reaches_its_provider_at_the_last_moment() -> None:
    buckets = RollingBuckets()
    for period in Period:
        for now in (0.0, 0.4999, SECONDS[period] / 3):
            assert buckets.number(period, now + REACHED_WITHIN_S) - buckets.number(period, now) <= AHEAD


def test_a_batch_that_was_not_sent_in_time_is_refunded_and_dispatched_again() -> None:
    limiter = Limiter({PER_MINUTE: 10})
    limiter.ready(1)
    limiter.tasks("a", "b")
    first = limiter.batch
    assert limiter.used() == 2
    limiter.after(SENT_WITHIN_S + 1)
    limiter.finished(first, requests=0, tokens=0, requeue={2: ids_of(first)}, uncharged=2)
    assert ids_of(limiter.batch) == ["a", "b"]
    assert limiter.used() == 2
    assert limiter.batch.charge is not None
    assert limiter.batch.charge.send_by == limiter.now.mono + SENT_WITHIN_S
