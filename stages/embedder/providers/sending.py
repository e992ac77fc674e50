"""The last moment at which a request may be written, and when it was written; each thread has its own.

A batch is charged to the quotas at one time and sent at another. The charge covers what is written until `send_by`.
The process may be stopped, or wait for a connection, at any moment, so a provider calls `check` directly before it
writes bytes of a request, on the connection that is open by then, and `note_written` directly after it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from common.process.clock import monotonic

FAR_S = 86_400.0
"""What is left where there is no limit."""


class NotCoveredError(Exception):
    """A request was not written, or not completely: what its batch was charged does not cover it any more."""


class _Sending(threading.local):
    send_by = 0.0
    written_at = 0.0


_now = _Sending()


@contextmanager
def covered_until(send_by: float) -> Iterator[None]:
    """Requests inside this context are covered by a charge until then (see `monotonic`); 0 means without an end."""
    before = _now.send_by
    _now.send_by, _now.written_at = send_by, 0.0
    try:
        yield
    finally:
        _now.send_by = before


def left_s() -> float:
    """The seconds that are left to write the request: a connection must be there within them."""
    return max(_now.send_by - monotonic(), 0.001) if _now.send_by else FAR_S


def check() -> None:
    """Call this directly before bytes of a request are written; raises `NotCoveredError`."""
    if _now.send_by and monotonic() > _now.send_by:
        raise NotCoveredError


def note_written() -> None:
    """Call this directly after bytes of a request were written."""
    _now.written_at = monotonic()


def written_at() -> float:
    """When the last bytes of this thread's request were written; 0 if none were, or the provider does not tell."""
    return _now.written_at


def trace(event: str, info: Mapping[str, Any]) -> None:
    """For httpx's request extension `trace`, which is called at each step of a request.

    It makes each new connection look at the time directly before it writes. What would be between the two otherwise,
    such as building the request, can take milliseconds while other threads run.
    """
    if event.endswith(_NEW_STREAM):
        _guard(info["return_value"])
    elif event.endswith("send_request_headers.started"):
        check()


_NEW_STREAM = ("connect_tcp.complete", "connect_unix_socket.complete", "start_tls.complete")


def _guard(stream: Any) -> None:
    write = stream.write

    def guarded(buffer: bytes, timeout: float | None = None) -> None:
        check()
        write(buffer, timeout)
        note_written()

    stream.write = guarded
