"""The loop ticks, sends heartbeats, drains and ends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

from common.process.actions import Instant, Report
from common.wire import messages as m
from tests.common.looping import Bench, Effect, Poked


def test_a_loop_ticks_at_a_steady_rate(bench: Bench) -> None:
    ticks: list[float] = []

    def tick(now: Instant) -> Iterable[Any]:
        ticks.append(now.mono)
        return ()

    bench.run(lambda: len(ticks) >= 5, tick=tick)
    assert 0.35 <= ticks[4] - ticks[0] <= 2.0


def test_a_loop_sends_heartbeats_to_the_monitor(bench: Bench) -> None:
    began = time.monotonic()
    bench.run(
        lambda: time.monotonic() > began + 1.2,
        report=lambda _: Report(["no token"], {"outbox": 7}),
    )
    beats = bench.monitor.heard()
    assert beats
    beat = beats[-1]
    assert isinstance(beat, m.Heartbeat)
    assert (beat.stage, beat.instance, beat.pid) == ("publisher", "publisher", os.getpid())
    assert (beat.boot_id, beat.blockers, beat.facts) == (bench.loop.boot_id, ["no token"], {"outbox": 7})
    assert beat.metrics


# ---- the end ----


def test_sigterm_drains_once_and_ends_when_the_stage_is_drained(bench: Bench) -> None:
    drains: list[Instant] = []

    def drain(now: Instant) -> Iterable[Any]:
        drains.append(now)
        bench.loop.post(Poked("settled while draining"))
        return ()

    bench.run(
        lambda: True,
        drain=drain,
        drained=lambda now: now.mono > drains[0].mono + 0.3,
    )
    assert len(drains) == 1
    assert bench.told == [Poked("settled while draining")]
    assert [entry["event"] for entry in bench.log] == ["process_started", "drain_started", "process_stopped"]


def test_the_actions_of_a_drain_are_performed(bench: Bench) -> None:
    done: list[str] = []
    bench.run(
        lambda: True,
        drain=lambda _: [Effect("last words")],
        effects={Effect: lambda effect: done.append(effect.what)},
    )
    assert done == ["last words"]


def test_an_event_that_is_already_posted_is_handled_before_the_process_stops(bench: Bench) -> None:
    bench.run(lambda: True, handlers={Poked: bench.tell}, effects={Effect: lambda _: bench.loop.post(Poked("last"))},
              drain=lambda _: [Effect("posts")])  # fmt: skip
    assert bench.told == [Poked("last")]
