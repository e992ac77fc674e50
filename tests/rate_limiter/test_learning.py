"""How long a rate limiter only listens after its start."""

from __future__ import annotations

from common.process.actions import Instant
from common.wire.timing import LEARNING_S
from stages.rate_limiter.learning import Learning
from tests.decisions import START


def at(seconds: float) -> Instant:
    return Instant(START.mono + seconds, START.wall + seconds)


def test_it_listens_for_the_whole_time_if_it_does_not_know_who_is_alive() -> None:
    learning = Learning(START)
    learning.heard("embedder_00")
    assert not learning.is_over(at(LEARNING_S - 0.01))
    assert learning.is_over(at(LEARNING_S))


def test_it_is_over_when_every_living_embedder_has_been_heard() -> None:
    learning = Learning(START)
    learning.expect(["embedder_00", "embedder_01"])
    learning.heard("embedder_01")
    learning.heard("embedder_02")
    assert not learning.is_over(START)
    learning.heard("embedder_00")
    assert learning.is_over(START)


def test_an_embedder_that_stays_silent_is_waited_for_no_longer() -> None:
    learning = Learning(START)
    learning.expect(["embedder_00"])
    assert not learning.is_over(at(LEARNING_S - 0.01))
    assert learning.is_over(at(LEARNING_S))


def test_there_is_nothing_to_hear_if_no_embedder_is_alive() -> None:
    learning = Learning(START)
    learning.expect([])
    assert learning.is_over(START)
