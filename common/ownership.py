"""Ownership on this machine: private folders, and locks that end with the process that holds them.

This is the only module that uses flock. A lock is a file. The kernel releases it when its holder ends, even by SIGKILL,
so a lock never stays behind. The holder's pid is written into the file, for people to read.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.failures.errors import Fatal

OWNER_ENDS_WITHIN_S = 4.0
"""How long the owner of a lock is waited for at the start of a process."""
RETRY_INTERVAL_S = 0.002
"""The time between two attempts to take a lock that another process holds."""


def private_directory(path: Path, variable: str) -> Path:
    """Create the folder if necessary, and give it mode 0700. Raises `Fatal`, naming the variable, if that fails."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
        owner = found.st_uid
        if found.st_mode & stat.S_ISVTX and any(path.iterdir()):  # such as /tmp: mode 0700 would break the machine
            raise Fatal(
                f"{variable}: {path} is shared by all users; set {variable} to a folder that only this service uses"
            )
        if owner != os.geteuid():
            raise Fatal(
                f"{variable}: {path} belongs to user {owner}, and this process runs as user {os.geteuid()}; "
                f"change its owner (chown) or set {variable} to a folder of this user"
            )
        path.chmod(0o700)
    except OSError as error:
        raise Fatal(
            f"{variable}: {path} cannot be used: {error.strerror}; make it writable or set {variable}"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise Fatal(f"{variable}: {path} is read-only; make it writable or set {variable} to another folder")
    return path


def open_lock(lock: Path) -> int:
    """Open the file of a lock, and create it if necessary. Raises `OSError`. The caller closes the descriptor."""
    return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def acquire(descriptor: int, within_s: float = 0.0, *, shared: bool = False) -> bool:
    """Take an open lock, exclusively or shared. Returns False if another process holds it for `within_s` seconds."""
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(RETRY_INTERVAL_S)
        else:
            return True


def release(descriptor: int) -> None:
    """Release a lock; its file stays open."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextmanager
def held(descriptor: int, within_s: float) -> Iterator[None]:
    """Hold a lock inside a `with` block. Raises `TimeoutError` if another process holds it for `within_s` seconds."""
    if not acquire(descriptor, within_s):
        raise TimeoutError(f"another process did not release the lock within {within_s:g} s")
    try:
        yield
    finally:
        release(descriptor)


def own(lock: Path, what: str) -> int:
    """Take the lock until this process ends. Raises `Fatal` if another process keeps it: two copies must not run.

    An owner whose supervisord was killed ends by itself within two seconds, so it is waited for.
    """
    try:
        descriptor = open_lock(lock)
    except OSError as error:
        raise Fatal(f"{lock} cannot be opened: {error.strerror}") from error
    if not acquire(descriptor) and not _owner_ends(descriptor, what):
        holder = _holder(descriptor)
        os.close(descriptor)
        raise Fatal(f"{what} is in use by another process (pid {holder}); stop that one first")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _owner_ends(descriptor: int, what: str) -> bool:
    import structlog  # noqa: PLC0415  supervisord, which never comes here, saves 4 MiB

    structlog.get_logger().warning(
        "waiting_for_owner", what=what, pid=_holder(descriptor), at_most_s=OWNER_ENDS_WITHIN_S
    )
    return acquire(descriptor, OWNER_ENDS_WITHIN_S)


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 40, 0).decode(errors="replace").split(" ")[0] or "unknown"


def is_owned(lock: Path) -> bool:
    """Whether a running process holds the lock."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not acquire(descriptor, shared=True)
    finally:
        os.close(descriptor)
