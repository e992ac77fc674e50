"""Who owns what on this machine: private folders, and locks that last as long as the process that holds them.

The only use of flock in the project. A lock is a file; the kernel releases it when its holder dies, however it dies, so
no lock is ever left behind. The holder's pid is written into the file for people to read.
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

RETRY_INTERVAL_S = 0.002
"""Seconds between two tries to take a lock that another process holds."""


def private_directory(path: Path, variable: str) -> Path:
    """Make the folder if need be, with mode 0700; raise `Fatal` naming the variable if it is not usable."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
        owner = found.st_uid
        if found.st_mode & stat.S_ISVTX and any(path.iterdir()):  # /tmp: to close it would break the machine
            raise Fatal(f"{variable}: {path} is shared by all users; set {variable} to a folder of its own")
        if owner != os.geteuid():
            raise Fatal(
                f"{variable}: {path} belongs to user {owner}, and this process runs as user {os.geteuid()}; "
                f"give it to that user (chown) or set {variable} to a folder of its own"
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
    """Open the file of a lock, and make it if need be; raises `OSError`. The caller closes the descriptor."""
    return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def acquire(descriptor: int, within_s: float = 0.0, *, shared: bool = False) -> bool:
    """Take an open lock, alone or shared with others; False if another process keeps it for `within_s` seconds."""
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
    """Let go of a lock, and keep its file open."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextmanager
def held(descriptor: int, within_s: float) -> Iterator[None]:
    """Hold a lock for a while; raises `TimeoutError` if another process keeps it for `within_s` seconds."""
    if not acquire(descriptor, within_s):
        raise TimeoutError(f"another process did not release it within {within_s:g} s")
    try:
        yield
    finally:
        release(descriptor)


def own(lock: Path, what: str) -> int:
    """Take the lock for as long as this process lives, or raise `Fatal`: a second copy must not start."""
    try:
        descriptor = open_lock(lock)
    except OSError as error:
        raise Fatal(f"{lock} cannot be opened: {error.strerror}") from error
    if not acquire(descriptor):
        holder = os.pread(descriptor, 40, 0).decode(errors="replace").split(" ")[0] or "unknown"
        os.close(descriptor)
        raise Fatal(f"{what} is in use by another process (pid {holder}); stop that one first")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def is_owned(lock: Path) -> bool:
    """Whether a living process owns the lock."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not acquire(descriptor, shared=True)
    finally:
        os.close(descriptor)
