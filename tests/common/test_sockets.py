"""The sockets of a process: nothing is lost before a peer that is not there yet, and no second copy takes an inbox."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest
import zmq

from common.failures.errors import Fatal
from common.ownership import is_owned, private_directory
from common.wire import messages as m
from common.wire.sockets import Sockets
from common.wire.wiring import Wiring
from tests.waiting import wait_until


@pytest.fixture
def folder(folder: Path) -> Path:
    """One that is not there yet."""
    return folder / "run"


def opened(folder: Path, instance: str) -> closing[Sockets]:
    return closing(Sockets(Wiring(folder, instance)))


def received(sockets: Sockets, count: int) -> list[m.Message]:
    found: list[m.Message] = []

    def enough() -> bool:
        while (frame := sockets.receive()) is not None:
            found.append(m.decode(frame[1]))
        return len(found) >= count

    wait_until(enough, 10.0, f"{count} messages")
    return found


def wait_connected(sender: Sockets, receiver: Sockets) -> None:
    """Flush, as each turn of the loop does, until something has come."""

    def has_come() -> bool:
        sender.flush()
        return bool(receiver.inbox.poll(0, zmq.POLLIN))

    wait_until(has_come, 10.0, "a connection")


def test_what_is_sent_before_the_peer_is_there_arrives_in_order(folder: Path) -> None:
    with opened(folder, "publisher") as publisher:
        sent: list[m.Message] = [m.Published([str(number)]) for number in range(100)]
        for message in sent:
            publisher.send("fetcher", message)
        with opened(folder, "fetcher") as fetcher:
            wait_connected(publisher, fetcher)
            publisher.send("fetcher", m.Published(["last"]))
            assert received(fetcher, 101) == [*sent, m.Published(["last"])]


def test_what_is_said_again_anyway_is_not_kept_for_a_peer_that_is_gone(folder: Path) -> None:
    with opened(folder, "publisher") as publisher:
        for number in range(100):
            publisher.send("fetcher", m.Holding("publisher", [str(number)]))
        publisher.send("fetcher", m.Published(["kept"]))
        with opened(folder, "fetcher") as fetcher:
            wait_connected(publisher, fetcher)
            assert received(fetcher, 1) == [m.Published(["kept"])]


def test_a_second_copy_is_refused_and_the_first_keeps_its_inbox(folder: Path) -> None:
    with opened(folder, "fetcher") as first:
        with pytest.raises(Fatal, match=rf"the inbox of fetcher in .* \(pid {os.getpid()}\); stop that one first"):
            Sockets(Wiring(folder, "fetcher"))
        with opened(folder, "publisher") as publisher:
            publisher.send("fetcher", m.Published(["a"]))
            wait_connected(publisher, first)
    with opened(folder, "fetcher") as again:
        assert is_owned(again.lock_of("fetcher"))


def test_only_the_user_gets_at_the_sockets(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    with opened(folder, "fetcher"):
        assert folder.stat().st_mode & 0o077 == 0


def test_an_edge_that_is_not_in_the_table_is_a_bug(folder: Path) -> None:
    with opened(folder, "fetcher") as fetcher, pytest.raises(AssertionError, match="no edge carries Stored"):
        fetcher.send("publisher", m.Stored("1"))


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Fatal, match=r"RUNTIME_DIR: .*/file/run cannot be used: Not a directory"):
        private_directory(tmp_path / "file" / "run", "RUNTIME_DIR")
