"""Private folders, and locks that end with the process that holds them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.failures.errors import Fatal
from common.ownership import acquire, held, is_owned, open_lock, own, private_directory, release
from tests.waiting import wait_until

OTHER_USER = 65_534

HOLDS = """
import sys, time
from pathlib import Path
from common.ownership import acquire, open_lock, own

lock, how = Path(sys.argv[1]), sys.argv[2]
if how == "own":
    own(lock, "the test's lock")
else:
    assert acquire(open_lock(lock), shared=how == "shared")
print("held", flush=True)
time.sleep(300)
"""


@contextmanager
def another_process_holds(lock: Path, how: str = "exclusive") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, until it is killed or the block ends."""
    command = [sys.executable, "-c", HOLDS, str(lock), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "test.lock"


@pytest.fixture
def descriptor(lock: Path) -> Iterator[int]:
    opened = open_lock(lock)
    yield opened
    os.close(opened)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Run as a user whom permissions stop. They do not stop root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(OTHER_USER)
    try:
        yield
    finally:
        os.seteuid(0)


def traversable(folder: Path) -> None:
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)


# ---- locks ----


def test_an_exclusive_lock_is_refused_while_another_process_holds_it(lock: Path, descriptor: int) -> None:
    with another_process_holds(lock):
        assert not acquire(descriptor)
        assert not acquire(descriptor, shared=True)


def test_a_shared_lock_may_be_held_by_several_processes_but_not_with_an_exclusive_one(
    lock: Path, descriptor: int
) -> None:
    with another_process_holds(lock, "shared"):
        assert acquire(descriptor, shared=True)
        release(descriptor)
        assert not acquire(descriptor)


def test_a_released_lock_can_be_taken_by_another_holder(lock: Path, descriptor: int) -> None:
    other = open_lock(lock)
    assert acquire(descriptor)
    assert not acquire(other)
    release(descriptor)
    assert acquire(other)
    os.close(other)
    assert acquire(descriptor), "closing the descriptor releases the lock too"


def test_acquiring_gives_up_after_the_given_time(lock: Path, descriptor: int) -> None:
    with another_process_holds(lock):
        began = time.monotonic()
        assert not acquire(descriptor, within_s=0.2)
        assert 0.2 <= time.monotonic() - began < 5.0


def test_a_lock_of_a_killed_process_is_free_again(lock: Path, descriptor: int) -> None:
    with another_process_holds(lock) as process:
        assert not acquire(descriptor)
        process.send_signal(signal.SIGKILL)
        assert acquire(descriptor, within_s=10.0)


def test_a_process_that_waits_for_a_lock_gets_it_when_its_holder_is_killed(lock: Path, descriptor: int) -> None:
    with another_process_holds(lock) as process:
        killer = subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -9 {process.pid}"])
        assert acquire(descriptor, within_s=10.0)
        killer.wait()


def test_a_lock_is_held_inside_its_block_only(lock: Path, descriptor: int) -> None:
    other = open_lock(lock)
    with held(descriptor, 0.0):
        assert not acquire(other)
    assert acquire(other)
    os.close(other)


def test_a_lock_is_released_when_its_block_raises(lock: Path, descriptor: int) -> None:
    other = open_lock(lock)
    with pytest.raises(KeyError), held(descriptor, 0.0):
        raise KeyError
    assert acquire(other)
    os.close(other)


def test_a_block_that_cannot_get_its_lock_in_time_raises_timeout_error(lock: Path, descriptor: int) -> None:
    with (
        another_process_holds(lock),
        pytest.raises(TimeoutError, match=r"another process did not release the lock within 0\.05 s"),
        held(descriptor, 0.05),
    ):
        raise AssertionError("the block must not run")


# ---- ownership for the life of a process ----


def test_an_owned_lock_names_its_process_for_people(lock: Path) -> None:
    descriptor = own(lock, "the store")
    assert lock.read_text() == str(os.getpid())
    assert lock.stat().st_mode & 0o077 == 0
    os.close(descriptor)


def test_a_second_owner_is_told_what_is_in_use_and_by_which_process(lock: Path) -> None:
    with another_process_holds(lock, "own") as process:
        assert is_owned(lock)
        with pytest.raises(
            Fatal, match=rf"the store is in use by another process \(pid {process.pid}\); stop that one"
        ):
            own(lock, "the store")


def test_a_lock_whose_owner_was_killed_can_be_owned_again(lock: Path) -> None:
    with another_process_holds(lock, "own") as process:
        process.kill()
        wait_until(lambda: not is_owned(lock), 10.0, "the kernel to release the lock")
    os.close(own(lock, "the store"))
    assert lock.read_text() == str(os.getpid()), "the pid of the killed owner is gone"


def test_a_lock_that_does_not_exist_or_is_not_held_has_no_owner(lock: Path) -> None:
    assert not is_owned(lock)
    os.close(open_lock(lock))
    assert not is_owned(lock)


def test_asking_for_the_owner_does_not_take_the_lock_away(lock: Path) -> None:
    descriptor = own(lock, "the store")
    assert is_owned(lock)
    assert is_owned(lock)
    os.close(descriptor)
    assert not is_owned(lock)


def test_a_lock_in_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match=r"/missing/a\.lock cannot be opened: No such file or directory"):
        own(tmp_path / "missing" / "a.lock", "the store")


# ---- private folders ----


def test_a_private_folder_is_created_with_its_parents_for_this_user_only(tmp_path: Path) -> None:
    made = private_directory(tmp_path / "a" / "b", "STATE_DIR")
    assert made == tmp_path / "a" / "b"
    assert made.stat().st_mode & 0o777 == 0o700


def test_an_existing_folder_is_closed_to_other_users_and_keeps_its_content(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("kept")
    private_directory(tmp_path, "STATE_DIR")
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "file").read_text() == "kept"


def test_a_file_in_place_of_a_folder_is_an_error_that_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        Fatal, match=r"^STATE_DIR: .*/file cannot be used: File exists; make it writable or set STATE_DIR"
    ):
        private_directory(tmp_path / "file", "STATE_DIR")


def test_a_folder_that_cannot_be_created_is_an_error_that_names_the_variable(tmp_path: Path) -> None:
    traversable(tmp_path)
    tmp_path.chmod(0o555)
    with without_privileges(), pytest.raises(Fatal, match=r"^RUNTIME_DIR: .*/new cannot be used: Permission denied"):
        private_directory(tmp_path / "new", "RUNTIME_DIR")


def test_a_folder_of_another_user_is_an_error_that_names_both_users(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    os.chown(tmp_path, OTHER_USER, OTHER_USER)
    expected = rf"^STATE_DIR: .* belongs to user {OTHER_USER}, and this process runs as user 0; change its owner"
    with pytest.raises(Fatal, match=expected):
        private_directory(tmp_path, "STATE_DIR")


def test_a_folder_that_all_users_share_is_an_error_and_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / "file-of-another-user").touch()
    with pytest.raises(Fatal, match=r"^STATE_DIR: .* is shared by all users; set STATE_DIR to a folder"):
        private_directory(tmp_path, "STATE_DIR")
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777
