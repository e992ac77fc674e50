"""A fetcher whose messages, pages and clock the test controls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from common.failures.errors import Transient
from common.process.actions import Send
from common.wire import messages as m
from stages.fetcher.actions import Lease, Poll, PollFailed
from stages.fetcher.config import FetcherConfig
from stages.fetcher.envelope import Unreadable
from stages.fetcher.lease_table import LEASED, Whereabouts
from stages.fetcher.page import Candidate, PendingPage
from stages.fetcher.poll_schedule import SETTLED_POLL_INTERVAL_S
from stages.fetcher.state import Fetcher
from tests import decisions, samples
from tests.decisions import START, after

INBOX = "ipc://fetcher"
INTERVAL = 30.0
LEASE = 15.0
TOLD = Send("publisher", m.ApiReachable())
"""What the publisher is told of each poll that succeeded."""


def candidate(task_id: str, key: str = "model", failure: m.Failure | None = None) -> Candidate:
    return Candidate(samples.task(task_id, key=key), 0.0, failure)


class Fetching:
    """Each call hands the fetcher a message, and returns its actions; `poll` is the poll that the last call began."""

    def __init__(
        self,
        *,
        max_in_flight: int = 10,
        leases: dict[str, Lease] | None = None,
        dead: Iterable[str] = (),
        token: bool = True,
        publisher_lists: bool = True,
        **config: Any,
    ) -> None:
        settings = {"lease_seconds": LEASE, "max_dispatches": 5, "polling_interval_s": INTERVAL, **config}
        self.state = Fetcher(FetcherConfig(max_in_flight, **settings), INBOX, leases or {}, dead, START)
        self.now = START
        self.poll: Poll | None = None
        self.asked_at = START
        self.did(self.state.on_tick(START))
        if leases and publisher_lists:
            self.did(self.state.on_holding(m.Holding("publisher", [], dead=list(dead)), START))
        if token:
            self.token("one")

    def after(self, seconds: float) -> Fetching:
        self.now = after(seconds, self.now)
        return self

    def did(self, actions: Iterable[Any]) -> list[Any]:
        done = list(actions)
        polls = decisions.of_type(Poll, done)
        self.poll = polls[-1] if polls else None
        if polls:
            self.asked_at = self.now
        return done

    def token(self, name: str, expires_in: float = 1e9) -> list[Any]:
        return self.did(self.state.on_token(samples.token(name, self.now.wall + expires_in), self.now))

    def page(self, *found: str | Candidate, elements: Any = None, whole: Any = True, **skipped: Any) -> list[Any]:
        """The poll that is under way returns this page."""
        candidates = [candidate(one) if isinstance(one, str) else one for one in found]
        read = len(found) + sum(skipped.values()) if elements is None else elements
        unreadable = [
            Unreadable(reason, "type", "p", 1, skipped[reason])
            for reason in ("malformed", "no_id")
            if skipped.get(reason)
        ]
        page = PendingPage(self.asked_at.wall, candidates, read, whole, skipped, [], unreadable=unreadable)
        return self.page_read(page)

    def page_read(self, page: PendingPage) -> list[Any]:
        """The poll that is under way returns exactly this page."""
        done = self.did(self.state.on_page(page, self.now))
        return [one for one in done if one != TOLD]  # each page is followed by it

    def failed(self, error: Exception | None = None, rejected: str = "") -> list[Any]:
        return self.did(self.state.on_poll_failed(PollFailed(error or Transient("down"), rejected), self.now))

    def parked(self, *ids: str, stored: Iterable[str] = ()) -> list[Any]:
        """The publisher holds these; the API refused the results of `ids` before."""
        return self.did(self.state.on_holding(m.Holding("publisher", list(stored), parked=list(ids)), self.now))

    def published(self, *accepted: str, dead: Iterable[str] = (), dropped: Iterable[str] = ()) -> list[Any]:
        return self.did(self.state.on_published(m.Published(list(accepted), list(dead), list(dropped)), self.now))

    def holding(
        self, *ids: str, embedding: Iterable[str] = (), stage: str = "rate_limiter", **fields: Any
    ) -> list[Any]:
        return self.did(self.state.on_holding(m.Holding(stage, list(ids), list(embedding), **fields), self.now))

    def deferred(self, *ids: str, seconds: float, reason: str = "quota", key: str | None = None) -> list[Any]:
        until = self.now.wall + seconds
        return self.did(self.state.on_deferred(m.Deferred(list(ids), until, reason, key), self.now))

    def tick(self) -> list[Any]:
        return self.did(self.state.on_tick(self.now))

    def live(self, seconds: float, step: float = 0.5, *, held: Iterable[str] = ()) -> list[Any]:
        """Let time pass while the rate limiter lives and holds these tasks; returns all actions."""
        done: list[Any] = []
        ids = list(held)
        for _ in range(round(seconds / step)):
            self.after(step)
            done += self.state.on_holding(m.Holding("rate_limiter", ids), self.now)
            ticked = list(self.state.on_tick(self.now))
            if decisions.of_type(Poll, ticked):
                self.asked_at = self.now
            done += ticked
        polls = decisions.of_type(Poll, done)
        self.poll = polls[-1] if polls else None
        return done

    @property
    def polling(self) -> bool:
        """Whether the last call began a poll."""
        return self.poll is not None

    @property
    def leased(self) -> list[str]:
        """Ids of the leased tasks, sorted."""
        return sorted(self.state.table.ids(*LEASED))

    @property
    def lost(self) -> list[str]:
        """Ids of the lost tasks, sorted."""
        return sorted(self.state.table.ids(Whereabouts.LOST))


def dispatched(actions: Iterable[Any]) -> list[m.Task]:
    return [task for message in decisions.of_type(m.Tasks, actions) for task in message.tasks]


def ids(actions: Iterable[Any]) -> list[str]:
    return [task.id for task in dispatched(actions)]


def with_leased(*task_ids: str, **limits: Any) -> Fetching:
    """A fetcher with these leased tasks, and no poll under way."""
    fetcher = Fetching(**limits)
    fetcher.page(*task_ids)
    if fetcher.poll:
        fetcher.page(known=len(task_ids))
    return fetcher


def settled(fetcher: Fetching, *ids: str) -> bool:
    """Settle these a while after the poll; returns whether that caused a poll."""
    fetcher.after(SETTLED_POLL_INTERVAL_S + 0.01).published(*ids)
    return fetcher.polling
