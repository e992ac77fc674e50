"""The event loop with real sockets: what it accepts, the order of its actions, its ticks and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zmq
from structlog.testing import capture_logs

from common.process import metrics
from common.process.actions import Count, Instant, Log, Report, Send
from common.process.loop import FRAMES_PER_TURN, Loop, Plan
from common.process.store import Store
from common.wire import messages as m
from common.wire.wiring import Wiring

TIMEOUT_S = 30.0


class Write(NamedTuple):
    """An action that is written in the turn's transaction."""

    key: bytes


class Effect(NamedTuple):
    """An action that leaves the process."""

    what: str


class Poked(NamedTuple):
    """An event from a thread."""

    what: str = ""


class Peer:
    """Another process: it pushes frames into the loop's inbox, and reads what comes to its own."""

    def __init__(self, sockets: Path, name: str, inbox: str) -> None:
        self.context = zmq.Context()
        self.name = name.encode()
        self.inbox = self.context.socket(zmq.PULL)
        self.inbox.bind(f"ipc://{sockets / name}.sock")
        self.push = self.context.socket(zmq.PUSH)
        self.push.connect(inbox)

    def send(self, *messages: m.Message) -> None:
        for message in messages:
            self.push.send_multipart((self.name, m.encode(message)))

    def send_bytes(self, payload: bytes) -> None:
        self.push.send_multipart((self.name, payload))

    def heard(self) -> list[Any]:
        """The messages that have arrived; waits up to a second for the first."""
        found: list[Any] = []
        while self.inbox.poll(1000 if not found else 50):
            found.append(m.decode(self.inbox.recv_multipart()[1]))
        return found

    def close(self) -> None:
        self.context.destroy(linger=0)


class Bench:
    """A loop as in the publisher, the fetcher and the monitor as its peers, and what its handlers received."""

    def __init__(self, folder: Path) -> None:
        self.loop = Loop(Wiring(folder, "publisher"))
        self.fetcher = Peer(folder, "fetcher", self.loop.wiring.inbox)
        self.monitor = Peer(folder, "monitor", self.loop.wiring.inbox)
        self.told: list[Any] = []
        self.log: list[Any] = []

    def tell(self, message: Any, _: Instant) -> Iterable[Any]:
        self.told.append(message)
        return ()

    def run(self, until: Callable[[], bool], **plan: Any) -> None:
        """Run the loop, and send SIGTERM to this process as soon as `until` holds."""
        handlers = {m.Results: self.tell, Poked: self.tell, **plan.pop("handlers", {})}
        tick = plan.pop("tick", lambda _: ())
        gives_up = time.monotonic() + TIMEOUT_S
        asked = False

        def ticking(now: Instant) -> Iterator[Any]:
            nonlocal asked
            yield from tick(now)
            if not asked and (until() or now.mono > gives_up):
                asked = True
                os.kill(os.getpid(), signal.SIGTERM)

        with capture_logs() as self.log:
            self.loop.run(Plan(handlers=handlers, tick=ticking, **plan))
        assert until(), "gave up waiting"

    def logged(self, event: str) -> list[Any]:
        return [entry for entry in self.log if entry["event"] == event]


@pytest.fixture
def bench(folder: Path) -> Iterator[Bench]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    umask = os.umask(0o077)
    made = Bench(folder)
    yield made
    made.fetcher.close()
    made.monitor.close()
    made.loop.sockets._context.destroy(linger=0)
    os.umask(umask)
    for number, handler in before.items():
        signal.signal(number, handler)


def results(name: str) -> m.Results:
    return m.Results(name, "", [])


def undecodable() -> float:
    return metrics.REGISTRY.get_sample_value("messages_undecodable_total", {"sender": "fetcher"}) or 0.0


# ---- what comes in ----


def test_each_message_goes_to_its_handler_in_order(bench: Bench) -> None:
    bench.fetcher.send(results("1"), results("2"), results("3"))
    bench.run(lambda: len(bench.told) == 3)
    assert bench.told == [results("1"), results("2"), results("3")]


def test_messages_beyond_the_limit_of_one_turn_are_all_handled(bench: Bench) -> None:
    many = 3 * FRAMES_PER_TURN + 1
    bench.fetcher.send(*(results(str(number)) for number in range(many)))
    bench.run(lambda: len(bench.told) == many)


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"\x92\xa5Tasks\x91", b"\x92\xa5\x80Tasks\x90", b"\x91" * 5000])
def test_an_undecodable_frame_is_counted_logged_and_dropped(bench: Bench, garbage: bytes) -> None:
    before = undecodable()
    bench.fetcher.send_bytes(garbage)
    bench.fetcher.send(results("after it"))
    bench.run(lambda: bool(bench.told))
    assert undecodable() == before + 1
    (entry,) = bench.logged("undecodable_frame")
    assert (entry["sender"], entry["bytes"]) == ("fetcher", len(garbage))


def test_a_frame_of_one_part_is_logged_and_dropped_as_undecodable(bench: Bench) -> None:
    bench.fetcher.push.send(b"only a sender")
    bench.fetcher.send(results("after it"))
    bench.run(lambda: bool(bench.told))
    assert len(bench.logged("undecodable_frame")) == 1


def test_a_message_without_a_handler_is_counted_logged_and_dropped(bench: Bench) -> None:
    before = undecodable()
    bench.fetcher.send(m.Stored("b1"), results("after it"))
    bench.run(lambda: bool(bench.told))
    assert undecodable() == before + 1
    assert len(bench.logged("unexpected_message")) == 1


# ---- what is done about it ----


def test_writes_are_committed_before_anything_leaves_the_process(bench: Bench, tmp_path: Path) -> None:
    store = Store(tmp_path, "loop", ("things",))
    seen: list[bytes | None] = []

    def handle(message: m.Results, _: Instant) -> Iterator[Any]:
        yield Effect(message.batch_id)
        yield Write(message.batch_id.encode())

    def effect(action: Effect) -> None:
        seen.append(store.get("things", action.what.encode()))

    bench.fetcher.send(results("1"), results("2"))
    bench.run(
        lambda: len(seen) == 2,
        handlers={m.Results: handle},
        writes={Write: lambda write: store.put("things", write.key, b"stored")},
        effects={Effect: effect},
        store=store,
    )
    assert seen == [b"stored", b"stored"]


def test_nothing_leaves_the_process_if_the_commit_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = Store(tmp_path, "loop", ("things",))
    done: list[str] = []

    def fail() -> None:
        raise OSError("disk full")

    monkeypatch.setattr(store, "commit", fail)
    bench.loop.post(Poked())
    with pytest.raises(OSError, match="disk full"):
        bench.run(
            lambda: False,
            handlers={Poked: lambda *_: [Effect("left"), Write(b"a")]},
            writes={Write: lambda write: store.put("things", write.key, b"")},
            effects={Effect: lambda effect: done.append(effect.what)},
            store=store,
        )
    assert done == []


def test_messages_are_sent_in_the_order_of_their_actions(bench: Bench) -> None:
    def handle(message: m.Results, _: Instant) -> Iterator[Any]:
        yield Send("fetcher", m.Published([message.batch_id]))
        yield Send("fetcher", m.Published([], [message.batch_id]))

    heard: list[Any] = []

    def listen(_: Instant) -> Iterable[Any]:
        while bench.fetcher.inbox.poll(0):
            heard.append(m.decode(bench.fetcher.inbox.recv_multipart()[1]))
        return ()

    bench.fetcher.send(results("1"), results("2"))
    bench.run(lambda: len(heard) >= 4, handlers={m.Results: handle}, tick=listen)
    assert heard == [m.Published(["1"]), m.Published([], ["1"]), m.Published(["2"]), m.Published([], ["2"])]


def test_a_message_that_is_not_in_the_table_of_edges_stops_the_process(bench: Bench) -> None:
    bench.loop.post(Poked())
    with pytest.raises(AssertionError, match="no edge carries Stored from publisher to fetcher"):
        bench.run(lambda: False, handlers={Poked: lambda *_: [Send("fetcher", m.Stored("b1"))]})


def test_log_and_count_actions_reach_the_log_and_the_metrics(bench: Bench) -> None:
    before = metrics.REGISTRY.get_sample_value("leases_expired_total") or 0.0
    bench.loop.post(Poked())
    said = [Log("something", {"task_id": "a"}, "warning"), Count("leases_expired_total", amount=3)]
    done: list[str] = []
    bench.run(
        lambda: bool(done),
        handlers={Poked: lambda *_: [*said, Effect("done")]},
        effects={Effect: lambda effect: done.append(effect.what)},
    )
    assert bench.logged("something") == [{"event": "something", "task_id": "a", "log_level": "warning"}]
    assert metrics.REGISTRY.get_sample_value("leases_expired_total") == before + 3


# ---- events ----


def test_an_event_from_a_thread_wakes_the_loop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.process.loop.TICK_S", 2.0)
    at: list[float] = []

    def told(*_: Any) -> Iterable[Any]:
        at.append(time.monotonic())
        return ()

    posted: list[float] = []

    def post() -> None:
        posted.append(time.monotonic())
        bench.loop.post(Poked())

    threading.Timer(0.25, post).start()
    bench.run(lambda: bool(at), handlers={Poked: told})
    assert at[0] - posted[0] < 1.0  # sooner than the next tick


def test_a_background_call_comes_back_as_an_event(bench: Bench) -> None:
    with ThreadPoolExecutor(1) as pool:
        bench.loop.background(pool, Poked, "from afar")
        bench.run(lambda: bench.told == [Poked("from afar")])


DIES = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
from common.failures.errors import Fatal
from common.process.loop import main

def start():
    ThreadPoolExecutor(1).submit(time.sleep, 300)
    raise {error}

main("embedder_00", start)
"""


@pytest.mark.parametrize(
    ("error", "logged", "traceback"),
    [("Fatal('STATE_DIR: full')", "STATE_DIR: full", False), ("KeyError('a')", "KeyError", True)],
)
def test_a_process_that_fails_stops_without_waiting_for_its_threads(
    error: str, logged: str, *, traceback: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DIES.format(error=error)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert logged in done.stdout
    assert ("Traceback" in done.stderr) == traceback


def test_a_background_call_that_raises_stops_the_process(bench: Bench) -> None:
    with ThreadPoolExecutor(1) as pool:
        bench.loop.background(pool, int, "no number")
        with pytest.raises(ValueError, match="no number"):
            bench.run(lambda: False)


def test_a_handler_that_raises_stops_the_process(bench: Bench) -> None:
    def handle(*_: Any) -> Iterable[Any]:
        raise KeyError("bug")

    bench.fetcher.send(results("1"))
    with pytest.raises(KeyError, match="bug"):
        bench.run(lambda: False, handlers={m.Results: handle})


def test_a_watched_descriptor_is_read_when_it_is_ready(bench: Bench) -> None:
    receiving, sending = os.pipe()
    read: list[bytes] = []
    bench.loop.watch(receiving, lambda: read.append(os.read(receiving, 100)))
    os.write(sending, b"ready")
    bench.run(lambda: read == [b"ready"])
    os.close(receiving)
    os.close(sending)


# ---- by the clock ----


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
