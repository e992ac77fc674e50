"""The loop hands messages to handlers, commits what they decide, and only then sends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.process import metrics
from common.process.actions import Count, Instant, Log, Send
from common.process.loop import FRAMES_PER_TURN
from common.process.store import Store
from common.wire import messages as m
from tests.common.looping import Bench, Effect, Poked, Write, results, undecodable


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
