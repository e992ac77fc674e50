"""The API, which records what it accepts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from common.api.responses import ApiResponse
from common.failures.errors import Error, Transient
from common.task_types import registered
from stages.fetcher.actions import Poll, PollFailed
from stages.fetcher.page import PendingPage, Reader
from stages.publisher.actions import SendPatch
from tests.simulator.broker import TokenEndpoint
from tests.simulator.world import BEGINNING, World


@dataclass
class Accepted:
    """A PATCH that the API has stored."""

    at: float
    body: bytes
    status: int
    """The status of its response; 0: the response was lost."""


@dataclass
class ApiTask:
    """A task in the API."""

    id: str
    key: str
    number: int
    nature: str
    """good, bad (unusable vector), unreadable (the provider refuses it), crashing (the provider answers 500), invalid,
    poison (kills its embedder), gone (deleted meanwhile), foreign, or refused (the API never takes its result, with a
    status of an outage)."""
    state: str = "pending"
    accepted: list[Accepted] = field(default_factory=list)
    queued_at: float = 0.0
    refused: int = 0
    """Number of responses with 400 or 422."""

    @property
    def pending(self) -> bool:
        return self.state == "pending"

    def element(self) -> dict[str, Any]:
        content = {"text": "" if self.nature == "invalid" else f"text of {self.id}", "model": self.key}
        kind = "another" if self.nature == "foreign" else "text_embedding"
        created = BEGINNING * 1000 + self.number
        return {"_id": self.id, "type": kind, "state": self.state, "content": content, "createdAt": created}


class Api:
    """The NestJS application; `mode` says how it responds now: normal, down, refusing or lossy."""

    def __init__(self, world: World, tokens: TokenEndpoint, *, cap: int | None, obeys_limit: bool) -> None:
        self.world = world
        self.tasks: dict[str, ApiTask] = {}
        self.cap = cap
        self.obeys_limit = obeys_limit
        self.mode = "normal"
        self.tokens = tokens
        self.tokens_refused = False
        """Whether its check of tokens is down: then it refuses every request with 403."""
        self.takes_refused = False
        """Whether it takes the results that it refused before, too: an operator has repaired it."""
        self.polls = 0
        self._reader = Reader(registered())

    def create(self, count: int, key: str, nature: str = "good") -> None:
        for _ in range(count):
            number = len(self.tasks)
            task_id = f"{nature}{number}"
            self.tasks[task_id] = ApiTask(task_id, key, number, nature, queued_at=self.world.now)

    def poll(self, poll: Poll, asked_at: float) -> PendingPage | PollFailed:
        self.polls += 1
        if not self.tokens.accepts(poll.token) or self.tokens_refused:
            return PollFailed(Transient("GET pending answered 401"), poll.token.fingerprint)
        if self.mode in {"down", "lossy"}:
            return PollFailed(Transient("GET pending answered 503"))
        pending = [task.element() for task in self.tasks.values() if task.pending]
        if self.cap or not self.obeys_limit:  # in a fixed order, dead letters at its front would hide the rest
            self.world.random.shuffle(pending)
        limit = min(self.cap or len(pending), poll.limit if self.obeys_limit else len(pending))
        try:
            page = [json.dumps(pending[:limit]).encode()]
            return self._reader.read(page, BEGINNING + asked_at, poll.wanted, poll.known, poll.deferred_keys)
        except Error as error:
            return PollFailed(error)

    def patch(self, patch: SendPatch, body: bytes) -> ApiResponse:
        def respond(status: int, retry_after: float = 0.0) -> ApiResponse:
            error = "" if status else "no response"
            return ApiResponse(patch.task_id, status, error, retry_after, patch.token.fingerprint)

        task = self.tasks[patch.task_id]
        if not self.tokens.accepts(patch.token) or self.tokens_refused:
            return respond(403 if self.tokens_refused else 401)
        if task.nature == "refused" and not self.takes_refused:
            task.refused += 1
            return respond(
                self.world.random.choice((0, 302, 401, 403, 500, 503)), self.world.random.choice((0.0, 60.0))
            )
        if task.state == "deleted":
            return respond(404)
        match self.mode:
            case "down":
                return respond(self.world.random.choice((0, 500, 503, 429, 403)), self.world.random.choice((0.0, 2.0)))
            case "refusing":
                task.refused += 1
                return respond(self.world.random.choice((400, 422)))
            case "lossy":  # it stores, but the response is lost, or the callback fails
                status = self.world.random.choice((0, 400, 500))
                task.refused += status == 400
            case _:
                status = 200
        task.state = json.loads(body)["state"]
        task.accepted.append(Accepted(self.world.now, body, status))
        return respond(status)

    def delete(self) -> None:
        """Delete tasks while they are being processed."""
        for task in self.tasks.values():
            if task.nature == "gone" and task.pending:
                task.state = "deleted"
