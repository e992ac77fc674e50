"""Cooldowns of providers: reported at once, and obeyed by the other embedders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.failures.errors import Throttled, Transient
from common.failures.wait_hints import LONGEST_WAIT_S
from common.wire import messages as m
from stages.embedder.state import Embedder
from tests.decisions import START, after, of_type
from tests.embedder.fakes import MODEL, Clock, ScriptedProvider, engine


def readies(state: Embedder, seconds: float) -> list[m.Ready]:
    return of_type(m.Ready, state.on_tick(after(seconds)))


@pytest.mark.parametrize("reported", [{"provider_cooldowns": {"openai": 5e9}}, {"key_cooldowns": {"*": 5e9}}], ids=str)
def test_a_new_cooldown_is_reported_before_the_next_regular_ready_message(reported: dict[str, Any]) -> None:
    state = Embedder("embedder_00", "boot", "ipc://embedder_00", 2)
    assert len(readies(state, 0)) == 1
    for name, value in reported.items():
        setattr(state, name, value)
    (ready,) = readies(state, 0.1)
    assert {name: getattr(ready, name) for name in reported} == reported
    assert readies(state, 0.2) == []


def test_the_end_of_a_cooldown_is_reported_at_once() -> None:
    state = Embedder("embedder_00", "boot", "ipc://embedder_00", 2)
    state.key_cooldowns = {"model": START.wall + 60}
    readies(state, 0)
    state.key_cooldowns = {}
    assert [ready.key_cooldowns for ready in readies(state, 0.1)] == [{}]


def test_an_embedder_that_is_told_of_a_cooldown_sends_nothing_until_it_is_over() -> None:
    provider, clock = ScriptedProvider(name="openai"), Clock()
    shared = engine(provider, clock=clock)
    until = clock().wall + 5
    shared.apply_cooldowns({"openai": until, "ollama": until + 100}, clock())
    assert shared.provider_cooldowns(clock()) == {"openai": pytest.approx(until)}
    assert shared.key_cooldowns(clock().wall) == {"*": pytest.approx(until)}
    assert isinstance(shared.session().embed(MODEL, ["a"])[0], np.ndarray)
    assert clock.waits == [pytest.approx(5)]
    assert len(provider.requests) == 1
    assert shared.provider_cooldowns(clock()) == {}


def test_a_cooldown_is_never_shortened_and_never_longer_than_an_hour() -> None:
    clock = Clock()
    shared = engine(ScriptedProvider(Throttled("429", 60.0), name="openai"), clock=clock)
    shared.session().embed(MODEL, ["a"])
    asked = shared.provider_cooldowns(clock())
    shared.apply_cooldowns({"openai": clock().wall + 5}, clock())
    assert shared.provider_cooldowns(clock()) == asked
    shared.apply_cooldowns({"openai": clock().wall + 1e9}, clock())
    assert shared.provider_cooldowns(clock()) == {"openai": pytest.approx(clock().wall + LONGEST_WAIT_S)}


def test_an_open_breaker_is_not_reported_as_a_cooldown_of_the_provider() -> None:
    provider, clock = ScriptedProvider(), Clock()
    provider.always = Transient("down")
    shared = engine(provider, clock=clock, circuit_breaker_threshold=1)
    shared.session().embed(MODEL, ["a"])
    assert shared.key_cooldowns(clock().wall)
    assert shared.provider_cooldowns(clock()) == {}
