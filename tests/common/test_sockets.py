"""The sockets of a process: no message is lost before the peer exists, and a second copy does not get the inbox."""

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
    """A folder that does not exist yet."""
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
    """Flush, as each turn of the loop does, until a message has arrived."""

    def has_come() -> bool:
        sender.flush()
        return bool(receiver.inbox.poll(0, zmq.POLLIN))

    wait_until(has_come, 10.0, "a connection")


def test_messages_sent_before_the_peer_exists_arrive_in_order(folder: Path) -> None:
    with opened(folder, "publisher") as publisher:
        sent: list[m.Message] = [m.Published([str(number)]) for number in range(100)]
        for message in sent:
            publisher.send("fetcher", message)
        with opened(folder, "fetcher") as fetcher:
            wait_connected(publisher, fetcher)
            publisher.send("fetcher", m.Published(["last"]))
            assert received(fetcher, 101) == [*sent, m.Published(["last"])]


def test_repeated_messages_are_not_kept_for_a_peer_that_is_gone(folder: Path) -> None:
    with opened(folder, "publisher") as publisher:
        for number in range(100):
            publisher.send("fetcher", m.Holding("publisher", [str(number)]))
        publisher.send("fetcher", m.Published(["kept"]))
        with opened(folder, "fetcher") as fetcher:
            wait_connected(publisher, fetcher)
            assert received(fetcher, 1) == [m.Published(["kept"])]


def test_a_second_copy_of_an_instance_is_refused_and_the_first_keeps_its_inbox(folder: Path) -> None:
    with opened(folder, "fetcher") as first:
        with pytest.raises(Fatal, match=rf"the inbox of fetcher in .* \(pid {os.getpid()}\); stop that one first"):
            Sockets(Wiring(folder, "fetcher"))
        with opened(folder, "publisher") as publisher:
            publisher.send("fetcher", m.Published(["a"]))
            wait_connected(publisher, first)
    with opened(folder, "fetcher") as again:
        assert is_owned(again.lock_of("fetcher"))


def test_the_instances_of_a_stage_that_run_are_known_by_their_locks(folder: Path) -> None:
    with opened(folder, "rate_limiter") as limiter, opened(folder, "embedder_01"):
        assert limiter.living("embedder") == ["embedder_01"]
    with opened(folder, "rate_limiter") as limiter:
        assert limiter.living("embedder") == []


def test_only_the_user_of_the_process_can_reach_its_sockets(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    with opened(folder, "fetcher"):
        assert folder.stat().st_mode & 0o077 == 0


def test_sending_a_message_that_is_not_in_the_table_of_edges_raises(folder: Path) -> None:
    with opened(folder, "fetcher") as fetcher, pytest.raises(AssertionError, match="no edge carries Stored"):
        fetcher.send("publisher", m.Stored("1"))


def test_a_file_in_place_of_the_runtime_directory_is_an_error_that_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Fatal, match=r"RUNTIME_DIR: .*/file/run cannot be used: Not a directory"):
        private_directory(tmp_path / "file" / "run", "RUNTIME_DIR")
