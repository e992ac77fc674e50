"""Which result, or which claim, is PATCHed next, and how many PATCHes are under way at a time.

The number adapts to the API (`connection_limit`), and API_REQUESTS_PER_MINUTE spreads them (`request_pace`).

New results go first to last. Those that the API refused before wait for their next try, and then share a few of the
connections: they may hang. A PATCH that hangs lends its connection to a new result, so that a few tasks whose callbacks
hang do not keep all others waiting.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Any

from common.api.connection_limit import ConnectionLimit
from common.api.request_pace import RequestPace
from common.api.responses import ApiResponse
from common.failures.throttle import THROTTLES

CONNECTIONS = 16
"""The default of API_CONNECTIONS: measured to be enough for 14,500 PATCHes a second on a local API."""
RETRY_CONNECTIONS = 4
"""PATCHes under way at a time of results that were refused before, while others wait; at most `RETRY_SHARE`."""
RETRY_SHARE = 1 / 4
SPARE_CONNECTIONS = 16
"""As many more new results may be under way as there are PATCHes that hang, or that have too many connections; at most
as many as API_CONNECTIONS."""
MOST_PROBES = 4
"""PATCHes at a time that look whether the API works again, while a circuit breaker is half-open."""
HANGS_S = 5.0
"""A PATCH that has been under way for this long hangs."""


def with_spare(connections: int) -> int:
    """The most PATCHes that are ever under way, if this number is API_CONNECTIONS."""
    return connections + min(connections, SPARE_CONNECTIONS)


class PatchQueue:
    """The results that are not accepted yet. All times are monotonic seconds."""

    def __init__(
        self,
        stored: Iterable[str],
        tries: Callable[[str], int],
        connections: int = CONNECTIONS,
        per_minute: int = 0,
    ) -> None:
        self.limit = ConnectionLimit(connections)
        """How many PATCHes may be under way."""
        self.pace = RequestPace(per_minute)
        """How soon after one another they may leave."""
        self.sending: dict[str, float] = {}
        """Results whose PATCH is under way → since when; the oldest first."""
        self._tries = tries
        """How often the API refused a result."""
        self._due: deque[str] = deque(stored)
        """Results to be sent now that were not refused before."""
        self._due_again: deque[str] = deque()
        """Results to be sent now that were."""
        self._later: list[tuple[float, str]] = []
        """Heap of (when, task id); an entry that differs from `_next_tries` is out of date."""
        self._next_tries: dict[str, float] = {}
        """Results that wait for their next try → when."""
        self._sending_again: set[str] = set()
        """Those under way that were refused before."""
        self._probe_newest = False
        """Whether the last probe was the newest result instead of the oldest."""

    @property
    def has_new(self) -> bool:
        """Whether there are results to be sent now that were not refused before."""
        return bool(self._due)

    @property
    def is_idle(self) -> bool:
        """Whether no PATCH is under way or due."""
        return not self._due and not self._due_again and not self.sending

    def add(self, *task_ids: str) -> None:
        """Send these results as soon as possible."""
        self._due.extend(task_ids)

    def add_first(self, task_id: str) -> None:
        """Send this result, which was sent before, ahead of the others."""
        (self._due_again if self._tries(task_id) else self._due).appendleft(task_id)

    def add_later(self, task_id: str, at: float) -> None:
        """Try this result again then."""
        self._next_tries[task_id] = at
        heapq.heappush(self._later, (at, task_id))

    def hurry(self, task_ids: Iterable[str]) -> None:
        """Send those of these results that wait for their next try now, ahead of others that were refused."""
        waiting = [task_id for task_id in task_ids if self._next_tries.pop(task_id, None) is not None]
        self._due_again.extendleft(reversed(waiting))

    def hurry_one(self) -> None:
        """Make the result due whose next try is nearest, if none is due: a probe needs one."""
        if self._next_tries and not self._due and not self._due_again:
            self.hurry([min(self._next_tries, key=self._next_tries.__getitem__)])

    def waiting(self) -> list[str]:
        """The results that wait for their next try."""
        return list(self._next_tries)

    def facts(self, now: float) -> dict[str, Any]:
        """What the heartbeat says about connections and pace."""
        return {"connections": len(self.sending), "connections_limit": self.limit.now, **self.pace.facts(now)}

    def learn(self, responses: Iterable[ApiResponse], now: float, *, are_probes: bool) -> None:
        """Let the limit learn from these responses, before `ended` is called for them.

        While the circuit breaker is not closed, they are of probes and of what it stopped: they tell nothing of load.
        """
        if are_probes:
            self.limit.begin_round()
            return
        ended, refused = 0, dict.fromkeys(THROTTLES, 0)
        served_s = []
        for response in responses:
            task_id, status, took_s = response.task_id, response.status, response.took_s
            began_at = self.sending.get(task_id)
            if began_at is None:
                continue  # its task was forgotten meanwhile
            ended += 1
            if took_s is None:
                took_s = now - began_at
            if 200 <= status < 300 or took_s >= HANGS_S:
                served_s.append(took_s)
            elif status in THROTTLES and task_id not in self._sending_again:
                refused[status] += 1
        self.limit.on_ended(ended, len(self.sending), served_s, refused[429], refused[503])

    def ended(self, task_id: str) -> None:
        """The PATCH of this result is not under way any more."""
        self.sending.pop(task_id, None)
        self._sending_again.discard(task_id)

    def take_due(self, now: float) -> None:
        """Make those due whose time for the next try has come."""
        while self._later and self._later[0][0] <= now:
            at, task_id = heapq.heappop(self._later)
            if self._next_tries.get(task_id) == at:
                del self._next_tries[task_id]
                self._due_again.append(task_id)

    def has_next(self, now: float, *, is_probe: bool = False) -> bool:
        """Whether there is a result to send, a connection for it, and its turn has come."""
        if len(self.sending) < self.limit.now:
            has_next = bool(self._due or self._due_again)
        else:
            has_next = self._has_other_connection(now, is_probe)
        return has_next and self.pace.allows(now)

    def _has_other_connection(self, now: float, is_probe: bool) -> bool:
        """Whether a result may be sent beyond the limit: as a probe, or on a connection that is lent to new results."""
        limit, under_way = self.limit, len(self.sending)
        if is_probe and under_way < min(MOST_PROBES, limit.most):
            return bool(self._due or self._due_again)
        if not self._due or under_way >= with_spare(limit.most):
            return False
        hanging = sum(1 for _ in takewhile(lambda began_at: now - began_at >= HANGS_S, self.sending.values()))
        lent = max(hanging, len(self._sending_again) - self._retry_connections)
        return under_way < limit.now + lent

    def begin(self, now: float, *, is_probe: bool) -> str:
        """Take the result to send next; `has_next` must be true."""
        task_id = self._probe() if is_probe else self._next()
        self.sending[task_id] = now
        self.pace.began(now)
        return task_id

    @property
    def _retry_connections(self) -> int:
        """Less than one while there are few: then the one that a refused result may have is lent to new results."""
        return min(RETRY_CONNECTIONS, int(self.limit.now * RETRY_SHARE))

    def _next(self) -> str:
        if not self._due_again:
            return self._due.popleft()
        retries = max(1, self._retry_connections)
        are_others_enough = len(self._sending_again) >= retries or len(self.sending) >= self.limit.now
        if self._due and are_others_enough:
            return self._due.popleft()
        return self._again(self._due_again[0])

    def _probe(self) -> str:
        """Take a result with the fewest tries: the newest, then the oldest. So a series of bad ones is soon passed."""
        if self._due:
            self._probe_newest = not self._probe_newest
            return self._due.pop() if self._probe_newest else self._due.popleft()
        return self._again(min(self._due_again, key=self._tries))

    def _again(self, task_id: str) -> str:
        self._due_again.remove(task_id)
        self._sending_again.add(task_id)
        return task_id
