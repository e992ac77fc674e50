"""PATCH /api/ai-tasks/:id through libcurl's multi interface, inside the loop: without threads, with few system calls.

libcurl tells which sockets to watch and when to call it. The sockets are in one epoll set, and the loop watches that
set. Connections are kept alive and used again.
"""

from __future__ import annotations

import select
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import pycurl
from prometheus_client.metrics import Counter

from common.api import curl, error_body
from common.api.responses import ApiResponse, ApiResponses
from common.process import metrics
from common.settings.settings import Settings
from common.wire.messages import Token

ENDPOINT = "/api/ai-tasks/:id"

_EVENTS = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}


class _Request(NamedTuple):
    """One PATCH under way."""

    task_id: str
    token: Token
    began: float
    """Monotonic seconds."""


class _Handle:
    """A libcurl handle and its request. The handle keeps its options from one request to the next."""

    def __init__(self, handle: pycurl.Curl) -> None:
        self.curl = handle
        self.lines: list[bytes] = []
        """The header lines of its last response."""
        self.body = bytearray()
        """The start of the body of its last response."""
        self.access_token = ""
        """The token in its request headers."""
        self.headers: list[str] = []
        """Its request headers, except the id of the request."""
        self.fresh = False
        """Whether its request must use a new connection."""
        self.request = _Request("", Token("", 0.0, ""), 0.0)

    def write(self, chunk: bytes) -> None:
        """Receive a part of the response body. Enough is kept to see that a body is longer than what is read of it."""
        if len(self.body) <= error_body.LARGEST_READ_BYTES:
            self.body += chunk[: error_body.LARGEST_READ_BYTES + 1 - len(self.body)]


class Patches:
    """Sends at most `connections` PATCHes at a time; their responses come back as `ApiResponses` events."""

    def __init__(
        self,
        settings: Settings,
        connections: int,
        post: Callable[[Any], None],
        watch: Callable[[int, Callable[[], None]], None],
    ) -> None:
        self._timeout_s = settings.request_timeout
        self._url = settings.api_base_url + "/api/ai-tasks/"
        self._post = post
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._call_at = float("inf")
        self._epoll = select.epoll()
        self._wanted: dict[int, int] = {}
        """Descriptor → the epoll events that libcurl waits for; 0 for none."""
        self._registered: dict[int, int] = {}
        """Descriptor → its events in the epoll set."""
        self._idle = [self._handle(settings) for _ in range(connections)]
        self._busy: dict[pycurl.Curl, _Handle] = {}
        self._request_id = f"x-request-id: {uuid.uuid4().hex[:16]}"
        """What the ids of all requests of this process begin with."""
        self._request_number = 0
        self._running = 0
        """Number of transfers that have not ended, as libcurl last reported."""
        self._requests: dict[int, Counter] = {}
        """Status → its counter. Cached, because finding a counter by its labels costs more than counting."""
        self._durations = metrics.API_DURATION.labels(ENDPOINT, "PATCH")
        watch(self._epoll.fileno(), self.ready)

    def begin(self, task_id: str, body: bytes, token: Token) -> None:
        """Start a PATCH. The caller starts at most `connections` at a time."""
        handle = self._idle.pop()
        handle.lines.clear()
        handle.body.clear()
        handle.request = _Request(task_id, token, time.monotonic())
        if handle.access_token != token.access_token:
            handle.access_token = token.access_token
            # "Expect:" keeps libcurl from sending `Expect: 100-continue` for a large body, which costs a round trip
            handle.headers = curl.request_headers(token.access_token, "Content-Type: application/json", "Expect:")
        self._request_number += 1
        # the API's log can show this id, so that an operator finds the request there
        handle.curl.setopt(pycurl.HTTPHEADER, [*handle.headers, f"{self._request_id}{self._request_number:016x}"])
        handle.curl.setopt(pycurl.URL, self._url + _quote(task_id))
        handle.curl.setopt(pycurl.POSTFIELDS, body)
        self._busy[handle.curl] = handle
        self._multi.add_handle(handle.curl)
        self._call_if_due()  # libcurl asks for a call at once for a new handle
        if self._running < len(self._busy):  # the call above has already read a quick response
            self._collect()

    def ready(self) -> None:
        """Let libcurl read and write; called when a socket is ready."""
        for descriptor, events in self._epoll.poll(0):
            if not self._wanted.get(descriptor):
                self._epoll.unregister(descriptor)  # an idle connection that the server closed
                self._registered.pop(descriptor, None)
                continue
            mask = (pycurl.CSELECT_IN if events & ~select.EPOLLOUT else 0) | (
                pycurl.CSELECT_OUT if events & ~select.EPOLLIN else 0
            )
            self._act(descriptor, mask)
        self.tick()

    def tick(self) -> None:
        """Let libcurl handle its timeouts, and collect the requests that have ended."""
        self._call_if_due()
        self._collect()

    def close(self) -> None:
        """Abort the requests under way."""
        for handle in self._busy:
            self._multi.remove_handle(handle)
        self._multi.close()
        self._epoll.close()

    def _call_if_due(self) -> None:
        if time.monotonic() >= self._call_at:
            self._call_at = float("inf")
            self._act(pycurl.SOCKET_TIMEOUT, 0)

    def _act(self, descriptor: int, events: int) -> None:
        _, self._running = self._multi.socket_action(descriptor, events)

    def _collect(self) -> None:
        responses = []
        while True:
            left, succeeded, failed = self._multi.info_read()
            responses += [self._received(self._busy[done]) for done in succeeded]
            for done, code, _ in failed:
                handle = self._busy[done]
                if curl.was_stale(done, code, handle.lines):
                    self._resend(handle)
                else:
                    responses.append(self._end(handle, 0, curl.failure_text(done, code, self._timeout_s)))
            if not left and not failed:  # a request that was just resent may have ended already
                break
        if responses:
            self._post(ApiResponses(responses))

    def _resend(self, handle: _Handle) -> None:
        self._multi.remove_handle(handle.curl)
        handle.body.clear()
        handle.fresh = True
        handle.curl.setopt(pycurl.FRESH_CONNECT, 1)
        self._multi.add_handle(handle.curl)
        self._call_if_due()

    def _received(self, handle: _Handle) -> ApiResponse:
        status = curl.status(handle.lines)
        return self._end(handle, status, "" if status else curl.BROKE)

    def _end(self, handle: _Handle, status: int, error: str) -> ApiResponse:
        del self._busy[handle.curl]
        self._multi.remove_handle(handle.curl)
        self._idle.append(handle)
        if handle.fresh:
            handle.fresh = False
            handle.curl.setopt(pycurl.FRESH_CONNECT, 0)
        task_id, token, began = handle.request
        took_s = time.monotonic() - began
        self._durations.observe(took_s)
        self._counter(status).inc()
        wait_s = 0.0 if 200 <= status < 300 else curl.retry_after_s(handle.lines) or 0.0
        if error:
            words = f"PATCH {ENDPOINT}: {error}"
            return ApiResponse(task_id, status, words, wait_s, token.fingerprint, took_s=took_s)
        told = error_body.read(status, bytes(handle.body), token.access_token)
        # an empty body tells nothing, except that a 404 is not the API's: that one always has words
        from_api = told.from_api or (not handle.body and status != 404)
        return ApiResponse(
            task_id, status, "", wait_s, token.fingerprint, from_api, told.in_words(), told.route_missing, took_s
        )

    def _counter(self, status: int) -> Counter:
        counter = self._requests.get(status)
        if counter is None:
            named = str(status) if status else "error"
            counter = self._requests[status] = metrics.API_REQUESTS.labels(ENDPOINT, "PATCH", named)
        return counter

    def _handle(self, settings: Settings) -> _Handle:
        handle = _Handle(curl.new_handle(settings))
        handle.curl.setopt(pycurl.CUSTOMREQUEST, "PATCH")
        handle.curl.setopt(pycurl.WRITEFUNCTION, handle.write)
        handle.curl.setopt(pycurl.HEADERFUNCTION, handle.lines.append)
        handle.curl.setopt(pycurl.SOCKOPTFUNCTION, self._on_socket_opened)
        return handle

    def _on_socket_opened(self, descriptor: int, _purpose: int) -> int:
        """Forget an earlier socket with this number: closing it removed it from the epoll set."""
        self._registered.pop(descriptor, None)
        return pycurl.SOCKOPT_OK

    def _watch_socket(self, what: int, descriptor: int, *_: object) -> None:
        """Note which events of a socket libcurl waits for.

        libcurl stops waiting after each request, and starts again for the next one on the same connection. To save two
        system calls per task, the socket stays in the epoll set in between. `ready` removes it if it becomes ready
        while libcurl does not wait for it.
        """
        events = _EVENTS.get(what, 0)
        self._wanted[descriptor] = events
        if not events or self._registered.get(descriptor) == events:
            return
        try:
            self._epoll.modify(descriptor, events)
        except FileNotFoundError:  # new, or closed and opened again under the same number
            self._epoll.register(descriptor, events)
        self._registered[descriptor] = events

    def _set_timer(self, milliseconds: int) -> None:
        self._call_at = float("inf") if milliseconds < 0 else time.monotonic() + milliseconds / 1000


def _quote(task_id: str) -> str:
    """Quote a task id for the path: no character in it may change which path is meant."""
    if task_id.isalnum() and task_id.isascii():
        return task_id
    return "".join(c if c.isascii() and c.isalnum() else "".join(f"%{b:02X}" for b in c.encode()) for c in task_id)
