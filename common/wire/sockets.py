"""The ZeroMQ sockets of one process: its inbox, and a PUSH into every inbox that it has sent to.

A frame is two parts, the sender's instance name and the encoded message, so that an undecodable one can be traced.
`IMMEDIATE` keeps messages out of pipes that lead nowhere: what cannot be sent now waits here, in order, or is dropped
if its sender repeats it anyway (`wiring.is_repeated`).
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections import defaultdict, deque
from pathlib import Path

import zmq

from common.failures.errors import Fatal
from common.wire import wiring
from common.wire.messages import Message, Token, encode

HIGH_WATER_MARK = 100_000
"""Messages; far above the window, so that no send ever waits for room (the design's rule 6)."""
LARGEST_MESSAGE = 256 * 2**20
"""Bytes; a batch of 2,048 inputs of 3,072 dimensions is 25 MB."""
DRAINING = "draining"
"""Stands behind the pid in the lock of an instance that is stopping."""
LINGER_MS = 2_000
"""How long a stopping process waits for its last messages to leave."""


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


def own(lock: Path, what: str) -> int:
    """Take the lock for as long as this process lives, or raise `Fatal`: a second copy must not start."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Fatal(f"{lock} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 40, 0).decode(errors="replace").split(" ")[0] or "unknown"
        os.close(descriptor)
        raise Fatal(f"{what} is in use by another process (pid {holder}); stop that one first") from None
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
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


class Sockets:
    """The inbox and the peers of one instance."""

    def __init__(self, where: wiring.Wiring) -> None:
        self.wiring = where
        private_directory(where.sockets, "RUNTIME_DIR")
        self._lock = own(self.lock_of(where.instance), f"the inbox of {where.instance} in {where.sockets}")
        self._context = zmq.Context()
        self.inbox: zmq.Socket[bytes] = self._context.socket(zmq.PULL)
        self.inbox.set_hwm(HIGH_WATER_MARK)
        self.inbox.setsockopt(zmq.MAXMSGSIZE, LARGEST_MESSAGE)
        self.inbox.bind(where.inbox)
        self._peers: dict[str, zmq.Socket[bytes]] = {}
        self._waiting: defaultdict[str, deque[bytes]] = defaultdict(deque)
        self._sender = where.instance.encode()
        for stage in where.receivers():
            self._connect(where.endpoint(stage))  # now, so that the first message finds its way open

    def lock_of(self, instance: str) -> Path:
        """The file that a running instance keeps locked."""
        return self.wiring.sockets / f"{instance}.lock"

    def mark_draining(self) -> None:
        """Let the other processes on this machine see that this one is stopping."""
        os.pwrite(self._lock, f"{os.getpid()} {DRAINING}".encode(), 0)

    def others_draining(self, stage: str) -> bool:
        """Whether an instance of the stage is stopping, and may still have something to say."""
        locks = self.wiring.sockets.glob(f"{stage}*.lock")
        return any(is_owned(lock) and lock.read_text().endswith(DRAINING) for lock in locks)

    def receive(self) -> tuple[str, bytes] | None:
        """Take one frame from the inbox, as (sender, payload); None when there is none."""
        try:
            parts = self.inbox.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return parts[0].decode(errors="replace"), b"".join(parts[1:])

    def send(self, to: str, message: Message) -> None:
        """Send without ever waiting; what cannot leave yet is kept in order, or dropped if it is repeated anyway."""
        self.wiring.check(to, message)
        endpoint = to if "://" in to else self.wiring.endpoint(to)
        waiting = self._waiting.get(endpoint)
        payload = encode(message)
        if waiting or not self._push(endpoint, payload):
            if wiring.is_repeated(message):
                return
            if isinstance(message, Token):
                self._waiting[endpoint].clear()  # the broker sends nothing else there, and only the newest is of use
            self._waiting[endpoint].append(payload)

    def flush(self) -> None:
        """Send what was waiting, as far as it goes."""
        for endpoint, waiting in list(self._waiting.items()):
            while waiting and self._push(endpoint, waiting[0]):
                waiting.popleft()
            if not waiting:
                del self._waiting[endpoint]

    def close(self) -> None:
        """Let the last messages leave, then close."""
        self.flush()
        self._context.destroy(linger=LINGER_MS)
        os.close(self._lock)

    def _push(self, endpoint: str, payload: bytes) -> bool:
        socket = self._peers.get(endpoint) or self._connect(endpoint)
        try:
            socket.send_multipart((self._sender, payload), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _connect(self, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._peers[endpoint] = self._context.socket(zmq.PUSH)
        socket.set_hwm(HIGH_WATER_MARK)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.connect(endpoint)
        return socket
