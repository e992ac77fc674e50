"""The store: one owner, a map that grows, and an error text for each reason why it cannot be read or written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest

from common.failures.errors import Fatal
from common.process.store import Store, is_running, read_only

SMALL = 64 * 1024
"""Bytes: the size of a map that a few records fill."""
OTHER_USER = 65_534


def opened(folder: Path, map_size: int = SMALL) -> closing[Store]:
    return closing(Store(folder, "stage", ("one", "two"), map_size))


def text(value: bytes) -> str:
    return value.decode()


def test_what_was_committed_is_there_after_a_restart_and_nothing_else_is(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.put("one", b"a", b"1")
        store.put("two", b"a", b"2")
        store.commit()
        store.put("one", b"b", b"never committed")
    with opened(tmp_path) as store:
        assert dict(store.scan("one", text)) == {"a": "1"}
        assert store.get("two", b"a") == b"2"


def test_later_writes_of_a_turn_win_over_earlier_ones(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.put("one", b"a", b"1")
        store.delete("one", b"a")
        store.put("one", b"b", b"1")
        store.put("one", b"b", b"2")
        store.commit()
        assert dict(store.scan("one", text)) == {"b": "2"}


def test_a_turn_can_read_what_it_has_written_itself(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.put("one", b"a", b"1")
        store.commit()
        assert store.latest("one", b"a") == b"1"
        store.put("one", b"a", b"2")
        store.put("two", b"a", b"3")
        assert (store.latest("one", b"a"), store.get("one", b"a")) == (b"2", b"1")
        store.delete("one", b"a")
        assert (store.latest("one", b"a"), store.get("one", b"a")) == (None, b"1")


def test_a_turn_that_does_not_fit_the_map_is_committed_whole_in_a_larger_one(tmp_path: Path) -> None:
    wanted = {str(number): "x" * 1000 for number in range(1000)}
    with opened(tmp_path) as store:
        store.put("two", b"before", b"kept")
        store.commit()
        for key, value in wanted.items():
            store.put("one", key.encode(), value.encode())
        store.commit()
        assert dict(store.scan("one", text)) == wanted
        assert store.get("two", b"before") == b"kept"


def test_a_store_that_has_grown_opens_again_with_a_small_initial_map(tmp_path: Path) -> None:
    for start in range(0, 1000, 100):
        with opened(tmp_path) as store:
            for number in range(start, start + 100):
                store.put("one", str(number).encode(), b"x" * 1000)
            store.commit()
            assert len(dict(store.scan("one", text))) == start + 100


def test_freed_space_is_used_again(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for turn in range(200):
            store.put("one", b"%d" % turn, b"x" * 5000)
            store.delete("one", b"%d" % (turn - 1))
            store.commit()
        assert (tmp_path / "stage" / "data.mdb").stat().st_size < 4 * SMALL


def test_a_second_owner_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    with opened(tmp_path):
        assert is_running(tmp_path, "stage")
        with pytest.raises(Fatal, match=rf"STATE_DIR.*in use by another process \(pid {os.getpid()}\)"):
            Store(tmp_path, "stage", ("one",))
    assert not is_running(tmp_path, "stage")
    with opened(tmp_path):
        pass


def test_another_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.put("one", b"a", b"1")
        store.commit()
        with store._env.begin(write=True) as txn:
            txn.put(b"version", b"999")
    for _ in range(2):
        with pytest.raises(Fatal, match=r"STATE_DIR: .* another version .*format 999, this one reads 1"):
            Store(tmp_path, "stage", ("one",))
        with pytest.raises(Fatal, match="another version"):
            read_only(tmp_path, "stage", "one", text)


def test_a_file_that_is_not_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "data.mdb").write_bytes(b"no store" * 10_000)
    with pytest.raises(Fatal, match=r"STATE_DIR: .*stage cannot be opened: "):
        Store(tmp_path, "stage", ("one",))
    with pytest.raises(Fatal, match=r"STATE_DIR: .*stage cannot be read: "):
        read_only(tmp_path, "stage", "one", text)


def test_a_record_that_cannot_be_decoded_is_reported_by_its_key(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.put("one", b"a task", b"\xc1")
        store.commit()
        with pytest.raises(Fatal, match="at the record b'a task'"):
            dict(store.scan("one", msgspec.msgpack.decode))


def test_a_store_can_be_read_while_another_process_owns_it(tmp_path: Path) -> None:
    assert read_only(tmp_path, "stage", "one", text) == {}
    with opened(tmp_path) as store:
        store.put("one", b"a", b"1")
        store.commit()
        script = (
            "import sys; from pathlib import Path; from common.process.store import read_only;"
            "print(read_only(Path(sys.argv[1]), 'stage', 'one', bytes.decode), "
            "read_only(Path(sys.argv[1]), 'stage', 'three', bytes.decode))"
        )
        found = subprocess.run([sys.executable, "-c", script, tmp_path], check=True, capture_output=True, text=True)
        assert found.stdout == "{'a': '1'} {}\n"


LIMITED = """
import resource, sys
from pathlib import Path
from common.failures.errors import Fatal
from common.process.store import Store

store = Store(Path(sys.argv[1]), "stage", ("one", "two"))
store.put("one", b"a", b"committed")
store.commit()
size = (store.path / "data.mdb").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
store.put("one", b"a", b"overwritten")
store.put("one", b"b", b"x" * 1_000_000)
try:
    store.commit()
except Fatal as error:
    sys.exit(str(error))
"""


def test_a_failed_write_is_reported_and_loses_only_its_own_turn(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"STATE_DIR: {tmp_path}/stage cannot be written" in done.stderr
    assert "File too large" in done.stderr
    with opened(tmp_path) as store:
        assert dict(store.scan("one", text)) == {"a": "committed"}


def test_lmdb_has_both_sync_flags_on(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        flags = store._env.flags()
    assert flags["sync"]
    assert flags["metasync"]
    assert not flags["writemap"]


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


def test_a_state_directory_that_is_not_writable_is_reported(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    tmp_path.chmod(0o555)
    with without_privileges(), pytest.raises(Fatal, match=r"STATE_DIR: .*/state cannot be used: Permission denied"):
        Store(tmp_path / "state", "stage", ("one",))


def test_a_state_directory_of_another_user_is_reported(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    os.chown(tmp_path, OTHER_USER, OTHER_USER)
    with pytest.raises(Fatal, match=rf"STATE_DIR: .* belongs to user {OTHER_USER}, and this process runs as user 0"):
        Store(tmp_path, "stage", ("one",))


def test_a_state_directory_that_all_users_share_is_reported_and_left_unchanged(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / "file-of-another-user").touch()
    with pytest.raises(Fatal, match=r"STATE_DIR: .* is shared by all users"):
        Store(tmp_path, "stage", ("one",))
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777


def test_other_users_cannot_read_a_store(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with opened(tmp_path) as store:
        assert tmp_path.stat().st_mode & 0o077 == 0
        assert (store.path / "data.mdb").stat().st_mode & 0o077 == 0
