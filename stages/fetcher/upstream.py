"""GET /api/ai-tasks/pending, on a thread of its own: the poll is rare, so `requests` is good enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import requests

from common import metrics
from common.errors import Error, Throttled, Transient
from common.retry import retry_after
from common.settings import Settings
from stages.fetcher.page import Page, Reader
from stages.fetcher.state import Poll, PollFailed

ENDPOINT = "/api/ai-tasks/pending"


class Upstream:
    """The API as the fetcher sees it; answers come back as `Page` or `PollFailed` events."""

    def __init__(self, settings: Settings, reader: Reader, background: Callable[..., None]) -> None:
        self._url = settings.api_base_url + ENDPOINT
        self._timeout = settings.request_timeout
        self._reader = reader
        self._background = background
        self._session = requests.Session()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upstream")

    def poll(self, action: Poll) -> None:
        """Begin the request."""
        self._background(self._thread, self.fetch, action)

    def fetch(self, action: Poll) -> Page | PollFailed:
        """GET one page, waiting for it."""
        began, requested_at = time.monotonic(), time.time()
        status = "error"
        event: Page | PollFailed
        try:
            with self._get(action) as response:
                status = str(response.status_code)
                _raise_for(response)
                event = self._reader.read(
                    self._chunks(response, began), requested_at, action.wanted, action.known, action.deferred_keys
                )
        except requests.RequestException as error:
            event = PollFailed(Transient(f"GET {ENDPOINT}: {type(error).__name__}"))
        except Error as error:
            event = PollFailed(error, action.token.fingerprint if status in {"401", "403"} else "")
        metrics.API_REQUESTS.labels(ENDPOINT, "GET", status).inc()
        metrics.API_DURATION.labels(ENDPOINT, "GET").observe(time.monotonic() - began)
        return event

    def close(self) -> None:
        """Let a poll that is under way go; what it brings is not wanted any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    def _get(self, action: Poll) -> requests.Response:
        return self._session.get(
            self._url,
            params={"limit": action.limit},
            headers={"Authorization": f"Bearer {action.token.access_token}", "Accept": "application/json"},
            timeout=self._timeout,
            stream=True,
            allow_redirects=False,
        )

    def _chunks(self, response: requests.Response, began: float) -> Iterator[bytes]:
        """The body; the whole of it must come within the timeout, however steadily it drips."""
        for chunk in response.iter_content(256 * 1024):
            yield chunk
            if time.monotonic() - began > self._timeout:
                raise Transient(f"GET {ENDPOINT} did not end within REQUEST_TIMEOUT ({self._timeout:g} s)")


def _raise_for(response: requests.Response) -> None:
    """Turn an answer that is no page into an error of ours."""
    status = response.status_code
    if status == 200:
        return
    sentence = f"GET {ENDPOINT} answered {status}"
    if 300 <= status < 400:
        sentence += " (a redirect, which is not followed: set API_BASE_URL to where the API really is)"
    delay = retry_after(response.headers, time.time())
    if delay is not None and status in {408, 425, 429, 500, 502, 503, 504}:
        raise Throttled(sentence, delay)
    raise Transient(sentence)
