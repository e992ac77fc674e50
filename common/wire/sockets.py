"""The ZeroMQ sockets of one process: its inbox, and one PUSH socket for each inbox that it sends to.

A frame has two parts: the sender's instance name, and the encoded message. The name tells where an undecodable message
came from. With `IMMEDIATE`, ZeroMQ does not queue messages for a peer that is not connected. A message that cannot be
sent now waits here, in order, or is dropped if its sender repeats it by itself (`wiring.is_repeated`).
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from pathlib import Path

import zmq

from common.ownership import is_owned, own, private_directory
from common.wire import wiring
from common.wire.messages import Message, Token, encode
from common.wire.timing import RECONNECT_INTERVAL_S

HIGH_WATER_MARK = 100_000
"""Messages per socket: far above MAX_IN_FLIGHT, so a send never waits for room (docs/architecture.md, rule 6)."""
LARGEST_MESSAGE_BYTES = 256 * 2**20
"""Bytes. For comparison: the results of a batch of 2,048 texts with 3,072 dimensions are 25 MB."""
LINGER_MS = 2_000
"""Milliseconds that a stopping process waits for its last messages to be sent."""


class Sockets:
    """The inbox of one instance, and its connections to other inboxes. Raises `Fatal` if the instance already runs."""

    def __init__(self, where: wiring.Wiring) -> None:
        self.wiring = where
        private_directory(where.sockets, "RUNTIME_DIR")
        self._lock = own(self.lock_of(where.instance), f"the inbox of {where.instance} in {where.sockets}")
        self._context = zmq.Context()
        self.inbox: zmq.Socket[bytes] = self._context.socket(zmq.PULL)
        self.inbox.set_hwm(HIGH_WATER_MARK)
        self.inbox.setsockopt(zmq.MAXMSGSIZE, LARGEST_MESSAGE_BYTES)
        self.inbox.bind(where.inbox)
        self._peers: dict[str, zmq.Socket[bytes]] = {}
        self._waiting: defaultdict[str, deque[bytes]] = defaultdict(deque)
        self._sender = where.instance.encode()
        for stage in where.receivers():
            self._connect(where.endpoint(stage))  # connect early, so the first message does not wait for the connection

    def lock_of(self, instance: str) -> Path:
        """The lock file of an instance; locked for as long as the instance runs."""
        return self.wiring.sockets / f"{instance}.lock"

    def living(self, stage: str) -> list[str]:
        """The instances of a stage that run now: they hold their locks."""
        locks = self.wiring.sockets.glob(f"{stage}*.lock")
        return [lock.stem for lock in locks if is_owned(lock)]

    def receive(self) -> tuple[str, bytes] | None:
        """Take one frame from the inbox, as (sender, payload); None if the inbox is empty."""
        try:
            parts = self.inbox.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return parts[0].decode(errors="replace"), b"".join(parts[1:])

    def send(self, to: str, message: Message) -> None:
        """Send without waiting. A message that cannot be sent yet is kept in order, or dropped if it is repeated."""
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
        """Send the waiting messages, as far as the peers are connected."""
        for endpoint, waiting in list(self._waiting.items()):
            while waiting and self._push(endpoint, waiting[0]):
                waiting.popleft()
            if not waiting:
                del self._waiting[endpoint]

    def close(self) -> None:
        """Send the last messages, for at most `LINGER_MS`, then close."""
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
        socket.setsockopt(zmq.RECONNECT_IVL, int(RECONNECT_INTERVAL_S * 1000))
        socket.connect(endpoint)
        return socket
