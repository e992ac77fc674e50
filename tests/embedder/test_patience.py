"""A provider that asked to be left alone: said at once, and obeyed by embedders that only hear of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.failures.errors import Throttled, Transient
from common.failures.wait_hints import LONGEST_WAIT_S
from common.wire import messages as m
from stages.embedder.state import Embedder
from tests.decisions import START, after, of
from tests.embedder.fakes import MODEL, Clock, Scripted, embedding


def readies(state: Embedder, seconds: float) -> list[m.Ready]:
    return of(m.Ready, state.on_tick(after(seconds)))


@pytest.mark.parametrize("news", [{"provider_cooldowns": {"openai": 5e9}}, {"key_cooldowns": {"*": 5e9}}], ids=str)
def test_it_is_said_before_the_next_second(news: dict[str, Any]) -> None:
    state = Embedder("embedder_00", "boot", "ipc://embedder_00", 2)
    assert len(readies(state, 0)) == 1
    for name, value in news.items():
        setattr(state, name, value)
    (said,) = readies(state, 0.1)
    assert {name: getattr(said, name) for name in news} == news
    assert readies(state, 0.2) == []


def test_the_end_of_a_pause_is_said_at_once_too() -> None:
    state = Embedder("embedder_00", "boot", "ipc://embedder_00", 2)
    state.key_cooldowns = {"model": START.wall + 60}
    readies(state, 0)
    state.key_cooldowns = {}
    assert [said.key_cooldowns for said in readies(state, 0.1)] == [{}]


def test_who_hears_of_it_sends_nothing_until_then() -> None:
    provider, clock = Scripted(name="openai"), Clock()
    shared = embedding(provider, clock=clock)
    until = clock().wall + 5
    shared.obey({"openai": until, "ollama": until + 100}, clock())
    assert shared.patience(clock()) == {"openai": pytest.approx(until)}
    assert shared.paused(clock().wall) == {"*": pytest.approx(until)}
    assert isinstance(shared.session().embed(MODEL, ["a"])[0], np.ndarray)
    assert clock.waits == [pytest.approx(5)]
    assert len(provider.requests) == 1
    assert shared.patience(clock()) == {}


def test_it_is_never_shortened_nor_longer_than_an_hour() -> None:
    clock = Clock()
    shared = embedding(Scripted(Throttled("429", 60.0), name="openai"), clock=clock)
    shared.session().embed(MODEL, ["a"])
    asked = shared.patience(clock())
    shared.obey({"openai": clock().wall + 5}, clock())
    assert shared.patience(clock()) == asked
    shared.obey({"openai": clock().wall + 1e9}, clock())
    assert shared.patience(clock()) == {"openai": pytest.approx(clock().wall + LONGEST_WAIT_S)}


def test_an_open_breaker_is_no_request_for_patience() -> None:
    provider, clock = Scripted(), Clock()
    provider.always = Transient("down")
    shared = embedding(provider, clock=clock, circuit_breaker_threshold=1)
    shared.session().embed(MODEL, ["a"])
    assert shared.paused(clock().wall)
    assert shared.patience(clock()) == {}
