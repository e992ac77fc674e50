"""A loop that commits beside its turns: nothing leaves before its writes are on disk, and free effects do not wait."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from common.failures.errors import Fatal
from common.process.actions import AfterCommit, Instant
from common.process.store import Store
from common.wire import messages as m
from tests.common.looping import TIMEOUT_S, Bench, Effect, Poked, Write, results


class Free(NamedTuple):
    """An action that depends on no uncommitted write."""

    what: str


class SlowDisk:
    """Holds back every commit of a store until it is let through."""

    def __init__(self, store: Store) -> None:
        self.commits = 0
        self.may_commit = threading.Event()
        self._write = store.write

    def write(self, turns: Any) -> None:
        assert self.may_commit.wait(TIMEOUT_S)
        self._write(turns)
        self.commits += 1


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, "loop", ("things",))


@pytest.fixture
def disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    slow = SlowDisk(store)
    monkeypatch.setattr(store, "write", slow.write)
    return slow


def write_and_do(message: m.Results, _: Instant) -> Iterator[Any]:
    """A message whose name begins with `w` is written."""
    name = message.batch_id
    if name.startswith("w"):
        yield Write(name.encode())
    yield Free(name)
    yield Effect(name)


def plan(store: Store, done: list[str], **more: Any) -> dict[str, Any]:
    return {
        "handlers": {m.Results: write_and_do},
        "writes": {Write: lambda write: store.put("things", write.key, b"stored")},
        "effects": {Effect: lambda effect: done.append(effect.what)},
        "free_effects": {Free: lambda free: done.append(f"free {free.what}")},
        "store": store,
        "commits_beside": True,
        **more,
    }


def test_while_a_commit_is_under_way_only_free_effects_are_performed(
    bench: Bench, store: Store, disk: SlowDisk
) -> None:
    done: list[str] = []
    seen: list[list[str]] = []

    def tick(_: Instant) -> Iterable[Any]:
        if "free 4" in done and not disk.may_commit.is_set():
            seen.append(list(done))
            disk.may_commit.set()
        return ()

    bench.fetcher.send(results("w1"), results("2"), results("w3"), results("4"))
    bench.run(lambda: "4" in done, tick=tick, **plan(store, done))
    assert seen == [["free w1", "free 2", "free w3", "free 4"]]
    assert done[4:] == ["w1", "2", "w3", "4"], "in the order of the turns"


def test_writes_that_gather_while_the_disk_is_busy_are_committed_together(
    bench: Bench, store: Store, disk: SlowDisk
) -> None:
    done: list[str] = []
    names = [f"w{number}" for number in range(300)]

    def tick(_: Instant) -> Iterable[Any]:
        if f"free {names[-1]}" in done:
            disk.may_commit.set()
        return ()

    bench.fetcher.send(*(results(name) for name in names))
    bench.run(lambda: done[-1:] == [names[-1]], tick=tick, **plan(store, done))
    assert [name for name in done if name.startswith("w")] == names
    assert disk.commits <= 3


def test_an_event_after_the_commit_finds_its_record_on_disk(bench: Bench, tmp_path: Path) -> None:
    store = Store(tmp_path, "loop", ("things",))
    found: list[bytes | None] = []

    def handle(_: m.Results, __: Instant) -> Iterator[Any]:
        yield Write(b"a")
        yield AfterCommit(Poked("a"))

    def stored(event: Poked, _: Instant) -> Iterable[Any]:
        found.append(store.get("things", event.what.encode()))
        return ()

    bench.fetcher.send(results("1"))
    handlers = {m.Results: handle, Poked: stored}
    bench.run(lambda: bool(found), **plan(store, [], handlers=handlers))
    assert found == [b"stored"]


def test_a_commit_that_fails_stops_the_process_and_nothing_leaves(
    bench: Bench, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def fail(_: Any) -> None:
        raise Fatal("the disk is full")

    monkeypatch.setattr(store, "write", fail)
    bench.fetcher.send(results("w1"))
    with pytest.raises(Fatal, match="the disk is full"):
        bench.run(lambda: False, **plan(store, done))
    assert done == ["free w1"]


def test_a_process_that_ends_commits_first_and_then_says_its_last_words(
    bench: Bench, store: Store, disk: SlowDisk
) -> None:
    done: list[str] = []
    disk.may_commit.set()

    def last_words(_: Instant) -> Iterator[Any]:
        yield Write(b"last")
        yield Effect("last")

    bench.run(lambda: True, **plan(store, done, last_words=last_words))
    assert done == ["last"]
    assert disk.commits == 1


def test_a_record_that_was_taken_for_a_commit_is_found_before_it_is_on_disk(store: Store) -> None:
    store.put("things", b"a", b"1")
    turns = [store.take_writes()]
    assert store.latest("things", b"a") == b"1"
    assert store.get("things", b"a") is None
    store.delete("things", b"a")
    assert store.latest("things", b"a") is None
    turns.append(store.take_writes())
    store.write(turns)
    assert store.latest("things", b"a") is None
    store.close()
