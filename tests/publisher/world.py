"""The world around a publisher: an API, and a token broker, on a clock that the test lets run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from stages.publisher.actions import MoveToDeadLetters, SendPatch
from tests import decisions
from tests.publisher.publishing import Publishing

STEP_S = 0.05
Respond = Callable[[str], int]
HANGS = -1
"""Instead of a status: the PATCH ends after `REQUEST_TIMEOUT_S`, without a response."""
REQUEST_TIMEOUT_S = 30.0


class World:
    """An API that ends every PATCH within one step, with the status that `respond` gives for the task.

    A token broker answers each request for another token within one step.
    """

    def __init__(self, publisher: Publishing, respond: Respond, **response: Any) -> None:
        self.publisher = publisher
        self.respond = respond
        self.response = response
        """What the responses to refused PATCHes have besides their status."""
        self.under_way: list[tuple[float, str, str]] = []
        """(when it ends, task id, fingerprint of the token)"""
        self.settled_at: dict[str, float] = {}
        self.letters: list[MoveToDeadLetters] = []
        self.refused: dict[str, int] = {}
        self.blockers: set[str] = set()
        self.token_requests = 0
        self.token = publisher.shown
        self.tokens_refused = False
        """Whether the API refuses every request, whatever its token."""
        for task_id in publisher.patched:
            self._begin(task_id, publisher.shown)
        self._token_wanted = False

    @property
    def shown(self) -> str:
        """The token of the PATCH that is answered."""
        return self.publisher.shown

    @property
    def now(self) -> float:
        return self.publisher.now.mono

    def results(self, *ids: str) -> None:
        self._did(self.publisher.results(*ids))

    def reachable(self) -> None:
        """A poll is answered."""
        self._did(self.publisher.polled())

    def new_token(self) -> None:
        """The broker issues another token."""
        self.token = f"t{self.token_requests}-{self.now:.2f}"
        self._did(self.publisher.token(self.token))

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.publisher.after(STEP_S)
            if self._token_wanted:
                self._token_wanted = False
                self.new_token()
            ended = [patch for patch in self.under_way if patch[0] <= self.now]
            self.under_way = [patch for patch in self.under_way if patch[0] > self.now]
            for _, task_id, token in ended:
                self.publisher.shown = token
                status = 403 if self.tokens_refused else max(0, self.respond(task_id))
                if status == 200:
                    self.settled_at.setdefault(task_id, self.now)
                    self._did(self.publisher.respond(200, task_id))
                else:
                    self.refused[task_id] = self.refused.get(task_id, 0) + 1
                    self._did(self.publisher.respond(status, task_id, **self.response))
            self._did(self.publisher.tick())
            self.blockers |= set(self.publisher.state.report(self.publisher.now).blockers)

    def _begin(self, task_id: str, token: str) -> None:
        takes_s = REQUEST_TIMEOUT_S if self.respond(task_id) == HANGS else STEP_S
        self.under_way.append((self.now + takes_s - 1e-6, task_id, token))

    def _did(self, actions: Iterable[Any]) -> None:
        done = list(actions)
        for patch in decisions.of_type(SendPatch, done):
            self._begin(patch.task_id, patch.token.fingerprint)
        self.letters += decisions.of_type(MoveToDeadLetters, done)
        if requests := decisions.sent_to("token_broker", done):
            self.token_requests += len(requests)
            self._token_wanted = True


def always(status: int, *bad: str) -> Respond:
    return lambda task_id: status if task_id in bad else 200
