"""When to poll the API for pending tasks, and what the pages tell about the API.

A poll costs the API much: the page shows the tasks in flight again before it shows new ones. So a page is asked for
when it can bring enough new tasks:

- After a page without new tasks, the next poll follows after the polling interval.
- After a page with new tasks, or a full one (others are hidden behind it), it follows as soon as at least `WORTH_SHARE`
  of it can be new. So each task is read about 1 / `WORTH_SHARE` times; until then the tasks in flight are work enough.
- If the tasks in flight end slowly, it follows after the polling interval. If they alone fill a page, it follows after
  `HELD_INTERVALS` of them: each page could only show as many hidden tasks as have ended.

After a failed poll no reason to poll counts until the cooldown is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from common.api.access_token import AccessToken
from common.api.request_pace import RequestPace, divided
from common.failures.breaker import Breaker
from common.failures.cooldown import Cooldown
from common.failures.errors import Throttled
from common.failures.retry import Backoff
from common.process.actions import Count, Instant, Log
from common.wire import messages as m
from common.wire.timing import IDLE_TICK_S, TICK_S
from stages.fetcher.actions import PollFailed
from stages.fetcher.config import FetcherConfig
from stages.fetcher.envelope import Unreadable
from stages.fetcher.page import PendingPage

WORTH_SHARE = 3 / 4
"""A poll because of settled tasks waits until this share of the page can be new."""
SETTLED_POLL_INTERVAL_S = 0.1
"""Polls because tasks were settled are at least this far apart."""
TOKEN_DEAD_AFTER = 3
"""Refusals of a token in a row, without a claim or a poll that was served in between, after which it is dead."""
HELD_INTERVALS = 10
"""If the tasks in flight fill a page, the next poll is held back for at most this many polling intervals."""
UNKNOWN_TYPES_LOGGED_COUNT = 1000
"""This many unknown types are logged, once each; all are counted."""
OBJECT_READ = (
    "the API sends a page object instead of an array; the array in it is read, and no further page is asked for"
)
SKIPPED_EACH_TIME = ("unknown_type", "other_shard", "deferred", "not_pending", "malformed", "no_id")
"""Elements skipped for these reasons come in every page: an API that obeys `limit` is asked for that many more."""


class PollSchedule:
    """At most one poll is under way. All times are monotonic seconds."""

    def __init__(self, config: FetcherConfig, inbox: str) -> None:
        self.backoff = Backoff(1.0, config.backoff_factor, 60.0)
        self.breaker = Breaker("api", config.breaker_threshold, self.backoff)
        self.access_token = AccessToken(inbox, TOKEN_DEAD_AFTER if config.claim_tasks else 1)
        """Polls leave one at a time. So without claims a refused poll is the only evidence."""
        self.pace = RequestPace(divided(config.requests_per_minute, claim_tasks=config.claim_tasks).fetcher)
        """How soon after one another polls and claims may leave."""
        self._waited_at_s = float("-inf")
        """When a poll that is due had to wait for its turn."""
        self.pages_full = False
        """Whether the last page was as long as asked for, or as the API's cap: there may be more behind it."""
        self.cooldown = Cooldown()
        """After a failed poll; its reason is what the API said, if it throttled."""
        self._failure = ""
        """Why the last poll failed; empty if it succeeded."""
        self._is_token_doubted = False
        """Whether a poll was refused together with the token since one succeeded."""
        self._was_refused = False
        """Whether the last poll was."""
        self._config = config
        self._under_way = False
        self._began_at_s = float("-inf")
        self._next_at_s = 0.0
        self._largest_page = 0
        """Elements of the longest page so far: the cap of an API that has one."""
        self._asked_count = 0
        """Elements that the last poll asked for."""
        self._page_count = 0
        """Tasks that the next page can show, in flight or new."""
        self._not_wanted_count = 0
        """Pending tasks that the fetcher must not take."""
        self._in_the_way_count = 0
        """Elements of the last page that stay pending, and are not for this pipeline or not for now."""
        self._unknown_types: set[str] = set()
        self._object_noticed = False
        self._unreadable: dict[Unreadable, Unreadable] = {}
        """The problems of elements that pages show and that cannot be read → the first of them."""

    # ---- whether and when ----

    def token(self, now: Instant, due_at_s: float | None = None) -> m.Token | None:
        """The token to poll with, if the poll is due and the API works; `due_at_s` replaces the next poll's time."""
        due_at_s = self._next_at_s if due_at_s is None else due_at_s
        if self._under_way or now.mono < due_at_s or not self.cooldown.is_over(now.mono):
            return None
        token = self.access_token.usable(now) if self.breaker.allows(now.mono) else None
        if token is not None and not self.pace.allows(now.mono, is_told=False):  # without new tasks, no harm is done
            self._waited_at_s = now.mono
            return None
        return token

    def is_due_soon(self, now: Instant) -> bool:
        """Whether a poll may be due before the next idle tick, or polls fail."""
        may_be_due = not self._under_way and now.mono >= self._next_at_s - IDLE_TICK_S
        return may_be_due or bool(self._failure) or self.access_token.usable(now) is None

    def is_poll_waiting(self, now: Instant) -> bool:
        """Whether a poll is due and waits for its turn in API_REQUESTS_PER_MINUTE: then claims wait for it."""
        return now.mono - self._waited_at_s <= 2 * TICK_S

    def begin(self, now: Instant) -> None:
        """A poll leaves."""
        self._under_way = True
        self._waited_at_s = float("-inf")
        self.pace.began(now.mono)
        self.breaker.began()

    def begin_for_pending(self, not_wanted_count: int, now: Instant) -> int:
        """A poll for pending tasks leaves; returns its limit.

        The limit is MAX_IN_FLIGHT, so that new tasks are seen behind those in flight, plus what else is in the way:
        the `not_wanted_count` pending tasks that the fetcher must not take, and what the last page showed in vain.
        """
        self.begin(now)
        self._began_at_s = now.mono
        self._not_wanted_count = not_wanted_count
        self._asked_count = self._config.max_in_flight + not_wanted_count + self._in_the_way_count
        return self._asked_count

    def poll_at_once(self, now: Instant) -> None:
        """There is a reason to poll now."""
        self._next_at_s = min(self._next_at_s, now.mono)

    def plan_next(self, longer_page_shows_more: bool, now: Instant) -> None:
        """The tasks of a page are leased: plan the next poll."""
        intervals = HELD_INTERVALS if self._page_count >= self._config.max_in_flight else 1
        self._next_at_s = self._began_at_s + intervals * self._config.polling_interval_s
        if longer_page_shows_more:
            self.poll_at_once(now)

    def poll_after_interval(self) -> None:
        """Hold the next poll back no longer than the polling interval."""
        self._next_at_s = min(self._next_at_s, self._began_at_s + self._config.polling_interval_s)

    def poll_if_worth_it(self, in_flight_count: int, room: int) -> None:
        """Poll soon if the next page can bring enough new tasks.

        `in_flight_count` of the pending tasks are in flight; `room` more may be leased.
        """
        new_count = min(room, self._page_count - in_flight_count)
        if new_count > 0 and new_count >= WORTH_SHARE * min(self._page_count, self._config.max_in_flight):
            self._next_at_s = min(self._next_at_s, self._began_at_s + SETTLED_POLL_INTERVAL_S)

    # ---- how a poll ended ----

    def succeeded(self) -> None:
        """A page came."""
        self._under_way = False
        self._failure, self.cooldown = "", Cooldown()
        self._is_token_doubted = self._was_refused = False
        self.breaker.succeeded()
        self.access_token.worked()

    def learn(self, page: PendingPage) -> bool:
        """Learn from a page what the API hides; returns whether a longer page would show more."""
        self._largest_page = max(self._largest_page, page.elements)
        self.pages_full = page.elements >= min(self._config.max_in_flight, self._largest_page) > 0
        before = self._in_the_way_count
        self._in_the_way_count = sum(page.skipped.get(reason, 0) for reason in SKIPPED_EACH_TIME)
        self._page_count = self._expected_page(page)
        return page.elements >= self._asked_count > 0 and self._in_the_way_count > before

    def _expected_page(self, page: PendingPage) -> int:
        """How many tasks for this pipeline the next page can show, in flight or new; 0 if no new ones are expected."""
        if self.pages_full:
            return min(self._asked_count, self._largest_page) - self._in_the_way_count - self._not_wanted_count
        is_mostly_ours = page.elements - self._in_the_way_count >= WORTH_SHARE * page.elements
        return page.elements if page.candidates and is_mostly_ours else 0

    def shows_all(self, page: PendingPage) -> bool:
        """Whether a task that is not in this page is not pending."""
        return page.whole and not self.pages_full and "deferred" not in page.skipped

    def log_skipped(self, page: PendingPage) -> Iterator[Any]:
        """Count what the page showed and what of it was skipped, and log what an operator should look at."""
        yield Count("ai_tasks_listed_total", (), page.elements)
        for reason, count in page.skipped.items():
            yield Count("ai_tasks_skipped_total", (reason,), count)
        yield from self._log_unreadable(page)
        if page.object_key and not self._object_noticed:
            self._object_noticed = True
            yield Log("page_object_read", {"key": page.object_key, "reason": OBJECT_READ}, "warning")
        for name in page.unknown_types:
            if name not in self._unknown_types and len(self._unknown_types) < UNKNOWN_TYPES_LOGGED_COUNT:
                self._unknown_types.add(name)
                why = "left alone: this pipeline has no such task type"
                yield Log("unknown_task_type", {"type": name, "reason": why}, "warning")

    def _log_unreadable(self, page: PendingPage) -> Iterator[Any]:
        """Log the elements that cannot be read, once each: every page shows them again."""
        before = self._unreadable
        now = {one._replace(position=0, alike=1): one for one in page.unreadable}
        # a page that was read in part may not show them again
        self._unreadable = now if page.whole else before | now
        for problem, one in now.items():
            if problem not in before or before[problem].alike < one.alike:
                fields: dict[str, Any] = {"reason": one.reason, "key": one.key, "problem": one.problem}
                fields |= {"position": one.position, "count": one.alike}
                yield Log("page_element_skipped", fields, "warning")

    def facts(self) -> dict[str, Any]:
        """What the heartbeat says about the pages."""
        notices = [
            f"{one.alike} of the pending elements cannot be read; the first is element {one.position}: {one.problem}"
            for one in self._unreadable.values()
        ]
        return {"notices": notices} if notices else {}

    def take_token(self, token: m.Token) -> None:
        """Use this token from now on. If it is another one, a poll that was refused is made again at once."""
        if self._was_refused and not self.access_token.is_current(token.fingerprint):
            self.cooldown = Cooldown()
        self.access_token.take(token)

    def failed(self, event: PollFailed, now: Instant) -> Iterator[Any]:
        """Back off. But the first time in a row that the token is refused, replace it and poll again at once."""
        self._under_way = False
        error, self._was_refused = event.error, bool(event.rejected)
        yield Log("poll_failed", {"reason": str(error)}, "warning")
        if event.rejected and not self._is_token_doubted:
            self._is_token_doubted = True
            self.breaker.undecided()
        else:
            self._failure = str(error)
            self.breaker.failed(now.mono, str(error), error=error)
            until = now.mono + self.backoff.delay(self.breaker.failures, error)
            self.cooldown = Cooldown(until, str(error) if isinstance(error, Throttled) else "")
        if event.rejected:
            yield from self.access_token.refused(event.rejected, now)

    def blockers(self, now: Instant) -> list[str]:
        """Why no page comes, in words: from a failed poll on, until one succeeds."""
        blockers = []
        if problem := self.access_token.problem(now):
            blockers.append(problem)
        if self.cooldown.reason:
            wait = self.cooldown.remaining_s(now.mono)
            blockers.append(f"the API throttles polls: {self.cooldown.reason}; next poll in {wait:.0f} s")
        elif reason := self._failure or self.breaker.reason:
            blockers.append(f"the API does not answer polls: {reason}")
        return blockers
