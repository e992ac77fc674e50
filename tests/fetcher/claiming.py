"""A fetcher with CLAIM_TASKS. The test plays the API, and sets the clock."""

from __future__ import annotations

from typing import Any

from common.api.responses import ApiResponse, ApiResponses
from stages.fetcher.actions import Claim, Lease
from stages.fetcher.lease_table import Whereabouts
from stages.fetcher.page import PendingPage
from tests import decisions
from tests.fetcher.fetching import Fetching, candidate

BREAKER = 5
A = frozenset("a")


class ClaimingFetching(Fetching):
    """The same with CLAIM_TASKS."""

    def __init__(self, *, max_in_flight: int = 10, leases: dict[str, Lease] | None = None, **config: Any) -> None:
        self.claims: list[str] = []
        super().__init__(
            max_in_flight=max_in_flight, leases=leases, breaker_threshold=BREAKER, claim_tasks=True, **config
        )

    def did(self, actions: Any) -> list[Any]:
        done = super().did(actions)
        self.claims = [claim.task_id for claim in decisions.of_type(Claim, done)]
        return done

    def answered(self, *task_ids: str, check: int | None = 409, **response: Any) -> list[Any]:
        """The API answers these claims; `check` is its answer to a second claim of one of them, if there is one."""
        done = self._answered(*task_ids, **response)
        claims, seconds = self.claims, [task_id for task_id in self.claims if task_id in task_ids]
        if check is not None and seconds:
            done += self._answered(*seconds, status=check)
            self.claims = [task_id for task_id in claims if task_id not in seconds] + self.claims
        return done

    def _answered(self, *task_ids: str, status: int = 200, retry_after: float = 0.0, token: str = "one") -> list[Any]:
        error = "" if status else "no answer"
        answers = [ApiResponse(task_id, status, error, retry_after, token) for task_id in task_ids]
        return self.did(self.state.on_api_responses(ApiResponses(answers), self.now))

    def in_progress(self, *task_ids: str) -> list[Any]:
        found = [candidate(task_id) for task_id in task_ids]
        return self.page_read(PendingPage(self.now.wall, found, len(found), True, {}, [], True))

    @property
    def given_back(self) -> list[str]:
        return sorted(self.state.table.ids(Whereabouts.PARKED))
