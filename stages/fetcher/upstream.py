"""Gets pages from the API (GET /api/ai-tasks/pending) with libcurl, on a thread, because reading a page takes time.

libcurl reads from the network only while the reader wants more of the body. So a page of any size takes bounded memory,
and the download stops when enough has been read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from urllib.parse import urlencode

import pycurl

from common.api import curl
from common.api.status import hint, is_throttle
from common.failures.errors import Error, Throttled, Transient
from common.process import metrics
from common.settings.settings import Settings
from stages.fetcher.actions import Poll, PollFailed
from stages.fetcher.page import PendingPage, Reader

PENDING = "/api/ai-tasks/pending"
ALL = "/api/ai-tasks"
"""With `?state=`: the tasks in that state."""
STOP_CHECK_INTERVAL_S = 0.25
"""How often a download looks whether the process is stopping."""


class Upstream:
    """The edge for polls; a poll ends in a `PendingPage` or a `PollFailed` event."""

    def __init__(self, settings: Settings, reader: Reader, background: Callable[..., None]) -> None:
        self._url = settings.api_base_url
        self._timeout = settings.request_timeout
        self._reader = reader
        self._background = background
        self._multi = pycurl.CurlMulti()
        self._handle = curl.new_handle(settings)
        self._handle.setopt(pycurl.ACCEPT_ENCODING, "gzip")
        self._handle.setopt(pycurl.BUFFERSIZE, 256 * 1024)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upstream")
        self._closing = False

    def poll(self, action: Poll) -> None:
        """Begin the request."""
        self._background(self._thread, self.fetch, action)

    def fetch(self, action: Poll) -> PendingPage | PollFailed:
        """GET one page, and wait for it."""
        began, requested_at = time.monotonic(), time.time()
        endpoint = PENDING if action.among is None else ALL
        status = 0
        event: PendingPage | PollFailed
        try:
            with self._get(endpoint, action) as download:
                status = download.status()
                _raise_for(endpoint, status, download.lines)
                event = self._reader.read(
                    download.body(), requested_at, action.wanted, action.known, action.deferred_keys, action.among
                )
        except Error as error:
            event = PollFailed(error, action.token.fingerprint if status in {401, 403} else "")
        metrics.API_REQUESTS.labels(endpoint, "GET", str(status) if status else "error").inc()
        metrics.API_DURATION.labels(endpoint, "GET").observe(time.monotonic() - began)
        return event

    def close(self) -> None:
        """Cancel a poll that is under way."""
        self._closing = True
        self._thread.shutdown(cancel_futures=True)
        self._multi.close()

    @contextmanager
    def _get(self, endpoint: str, action: Poll) -> Iterator[_Download]:
        handle, query = self._handle, {"limit": action.limit} if action.among is None else {"state": "in_progress"}
        handle.setopt(pycurl.FRESH_CONNECT, 0)
        handle.setopt(pycurl.URL, f"{self._url}{endpoint}?{urlencode(query)}")
        handle.setopt(pycurl.HTTPHEADER, curl.request_headers(action.token.access_token))
        self._multi.add_handle(handle)
        try:
            yield _Download(self._multi, handle, partial(self._why, endpoint), lambda: self._closing)
        finally:
            self._multi.remove_handle(handle)  # closes the connection, if there is more to come on it

    def _why(self, endpoint: str, code: int) -> str:
        return f"GET {endpoint}: {curl.failure_text(self._handle, code, self._timeout)}"


class _Download:
    """One response, while it is being downloaded."""

    def __init__(
        self, multi: pycurl.CurlMulti, handle: pycurl.Curl, why: Callable[[int], str], stopping: Callable[[], bool]
    ) -> None:
        self._multi = multi
        self._handle = handle
        self._why = why
        self._stopping = stopping
        self._pieces: list[bytes] = []
        self._ended = False
        self.lines: list[bytes] = []
        """The header lines."""
        handle.setopt(pycurl.WRITEFUNCTION, self._pieces.append)
        handle.setopt(pycurl.HEADERFUNCTION, self.lines.append)

    def status(self) -> int:
        """Wait for the head of the response, and return its status; raise `Transient` if none comes."""
        while not self._pieces and not self._ended:
            self._advance()
        found = curl.status(self.lines)
        if not found:
            raise Transient(self._why(pycurl.E_PARTIAL_FILE))
        return found

    def body(self) -> Iterator[bytes]:
        """Yield the body piece by piece; raise `Transient` if it breaks off or takes too long."""
        while self._pieces or not self._ended:
            if self._pieces:
                pieces = b"".join(self._pieces)
                self._pieces.clear()
                yield pieces
            else:
                self._advance()

    def _advance(self) -> None:
        """Let libcurl read what has arrived; if that is nothing, wait for more."""
        self._multi.perform()
        _, succeeded, failed = self._multi.info_read()
        self._ended = bool(succeeded)
        if failed:
            self._retry_if_stale(failed[0][1])
        if self._stopping():
            raise Transient("the poll was cancelled because the fetcher is stopping")
        if not self._pieces and not self._ended:
            self._multi.select(STOP_CHECK_INTERVAL_S)

    def _retry_if_stale(self, code: int) -> None:
        if not curl.was_stale(self._handle, code, self.lines):
            raise Transient(self._why(code))
        self._multi.remove_handle(self._handle)
        self._handle.setopt(pycurl.FRESH_CONNECT, 1)
        self._multi.add_handle(self._handle)


def _raise_for(endpoint: str, status: int, lines: list[bytes]) -> None:
    """Raise an error for a response that is not a page."""
    if status in {200, 204}:  # 204: nothing is pending
        return
    sentence = f"GET {endpoint} answered {status}{hint(status)}"
    delay = curl.retry_after_s(lines)
    if delay is not None and is_throttle(status):
        raise Throttled(sentence, delay)
    raise Transient(sentence)
