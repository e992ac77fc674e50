"""How an API reacts to load: a throttle like that of `@nestjs/throttler`, and workers for which PATCHes wait."""

import asyncio
import math
import time
from collections.abc import Callable

from sandbox.http import Response, json_response
from sandbox.settings import ApiSettings


class HandlerThrottle:
    """Counts the requests to each handler in windows; after too many, the handler refuses for one more window.

    As version 6 of `@nestjs/throttler` with its defaults: the window begins with its first request, and the block with
    the first one that is too many. Here all clients are one.
    """

    def __init__(self) -> None:
        self._windows: dict[str, tuple[float, int]] = {}
        """Handler → when its window ends, and the requests in it."""
        self._blocked_until: dict[str, float] = {}
        self.refused = 0

    def check(self, handler: str, settings: ApiSettings) -> Response | None:
        """Count a request; returns the 429 if it is refused."""
        limit, now = settings.throttle_limit, time.monotonic()
        until = self._blocked_until.get(handler, 0.0)
        if now >= until:
            ends, count = self._windows.get(handler, (0.0, 0))
            if now >= ends:
                ends, count = now + settings.throttle_seconds, 0
            self._windows[handler] = (ends, count + 1)
            if count < limit:
                return None
            until = self._blocked_until[handler] = now + settings.throttle_seconds
            del self._windows[handler]
        self.refused += 1
        content = {"statusCode": 429, "message": "ThrottlerException: Too Many Requests"}
        return json_response(429, content, {"Retry-After": str(math.ceil(until - now))})


class Workers:
    """Work on a number of PATCHes at a time, while the others wait: so the latency grows with the connections."""

    def __init__(self) -> None:
        self._free: list[float] = []
        self.most_waiting = 0
        """The most PATCHes that waited or were worked on at a time."""
        self._under_way = 0

    async def work(self, settings: ApiSettings, carry_out: Callable[[], Response]) -> Response:
        """Wait for a free worker, then for the work, then respond."""
        now = time.monotonic()
        self._free = sorted(self._free)[-settings.workers :]
        while len(self._free) < settings.workers:
            self._free.insert(0, now)
        done_at = max(now, self._free.pop(0)) + settings.work_seconds
        self._free.append(done_at)
        self._under_way += 1
        self.most_waiting = max(self.most_waiting, self._under_way)
        try:
            await asyncio.sleep(done_at - now)
        finally:
            self._under_way -= 1
        return carry_out()
