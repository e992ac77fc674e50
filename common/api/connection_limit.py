"""How many PATCHes may be under way at a time: fewer when they wait in the API for each other, more when they do not.

Throughput is connections / latency. So fewer connections cost throughput, unless the PATCHes only wait in the API for
each other: then latency falls with them. Which of the two it is shows the latency while few are under way, the base:

    wait = latency - base            more than the base (and `QUICK_S`) → fewer       less than half of that → more

A slow but steady API has no wait, and keeps all connections. If an API becomes slower for another reason, the limit
falls until few are under way. Then the base is learnt again, and the limit is at its most after a few responses.

This is the rule of TCP Vegas (L. Brakmo, L. Peterson: "TCP Vegas: End to End Congestion Avoidance on a Global
Internet", IEEE JSAC 13, 1995), with the factor of "gradient" in Netflix' concurrency-limits for the way down, and
doubling up to the last good value and then steps of one for the way up, as in TCP (RFC 5681, 3.1).
"""

from __future__ import annotations

import math

FEWEST_SHARE = 1 / 8
"""With at most this share of the most under way, PATCHes are taken not to wait for each other."""
QUICK_S = 0.025
"""A shorter wait is not counted: it may be this process' own."""
SHORTEST_ROUND = 4
"""The limit is judged after at least this number of responses, and after as many as the limit."""


class ConnectionLimit:
    """The limit; it is told of responses by the batch. Durations are seconds."""

    def __init__(self, most: int) -> None:
        self.most = most
        """API_CONNECTIONS."""
        self.now = most
        """This number of PATCHes may be under way; from 1 to `most`."""
        self._few = max(1, int(most * FEWEST_SHARE))
        self._base_s = math.inf
        """The latency of a PATCH that waits for no other; infinite until it is known."""
        self._last_good = most
        """Up to this number the limit is doubled, beyond it goes up by one."""
        self._served_s: list[float] = []
        """The durations of this round."""
        self._throttled = 0
        """Responses of this round with 429."""
        self._unavailable = 0
        """Responses of this round with 503."""
        self._under_way = 0
        """The most PATCHes that were under way in this round."""
        self._ignored = 0
        """This number of responses is to PATCHes that began before the limit fell."""

    def on_ended(
        self, count: int, under_way: int, served_s: list[float], throttled: int = 0, unavailable: int = 0
    ) -> None:
        """Learn from `count` PATCHes that ended, while `under_way` were (they included).

        `served_s` has the durations of those that were served or hung. `throttled` were answered 429, and `unavailable`
        503, which is an outage unless others are served. The rest says nothing about the API's load.
        """
        if self._ignored > 0:
            self._ignored -= count
            return
        self._under_way = max(self._under_way, under_way)
        self._throttled += throttled
        self._unavailable += unavailable
        self._served_s += served_s
        served = len(self._served_s)
        if self._throttled + (self._unavailable if served else 0) >= max(2, served):
            self._fall(self.now // 2, under_way - count)
        elif served >= SHORTEST_ROUND and served >= self.now:
            self._judge(under_way - count)

    def _judge(self, still_under_way: int) -> None:
        self._served_s.sort()
        latency = self._served_s[len(self._served_s) // 4]  # if PATCHes wait for each other, most of them do
        if min(self._under_way, self.now) <= self._few:
            self._base_s, self._last_good = latency, self.most
        elif latency < self._base_s and (latency <= QUICK_S or self._base_s < math.inf):
            self._base_s = latency
        if self._base_s == math.inf:  # with few under way it will be learnt
            self._fall(self._few, still_under_way)
            return
        wait, tolerated = latency - self._base_s, max(self._base_s, QUICK_S)
        if wait > tolerated:
            self._fall(int(self.now * max(0.5, (self._base_s + tolerated) / latency)), still_under_way)
            return
        if wait <= tolerated / 2 and 2 * self._under_way > self.now:
            self.now = min(2 * self.now, self._last_good) if self.now < self._last_good else self.now + 1
            self.now = min(self.now, self.most)
        self.begin_round()

    def _fall(self, limit: int, still_under_way: int) -> None:
        self.now = self._last_good = max(1, min(limit, self.now - 1))
        self._ignored = still_under_way
        self.begin_round()

    def begin_round(self) -> None:
        """Forget what was learnt since the limit was judged last."""
        self._served_s = []
        self._throttled = self._unavailable = self._under_way = 0
