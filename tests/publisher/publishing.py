"""A publisher with a token. The test plays the API, and sets the clock."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from common.api.responses import ApiResponse, ApiResponses
from common.process.actions import AfterCommit
from common.wire import messages as m
from stages.publisher.actions import OutboxEntry, ResultsStored, SendPatch
from stages.publisher.config import PublisherConfig
from stages.publisher.state import Publisher
from tests import decisions, samples
from tests.decisions import START, after

INBOX = "ipc://publisher"


def entry(leased_at: float = samples.LEASED_AT, state: str = "succeeded") -> OutboxEntry:
    return OutboxEntry(samples.TYPE, state, leased_at)


class Publishing:
    """Each call returns the actions. `patched` has the ids of the tasks whose PATCH the last call started."""

    def __init__(
        self, *, stored: Iterable[str] = (), dead: Iterable[str] = (), token: bool = True, **config: Any
    ) -> None:
        entries, letters = {i: entry() for i in stored}, {i: entry() for i in dead}
        self.state = Publisher(PublisherConfig(**config), INBOX, entries, letters, START)
        self.now = START
        self.patched: list[str] = []
        self.held: tuple[type, ...] = ()
        """Events after a commit that is not through: they are in `uncommitted`."""
        self.uncommitted: list[Any] = []
        self.shown = "one"
        """Fingerprint of the token that the last PATCH sent."""
        self.did(self.state.on_tick(START))
        if token:
            self.token("one")

    def after(self, seconds: float) -> Publishing:
        self.now = after(seconds, self.now)
        return self

    def did(self, actions: Iterable[Any]) -> list[Any]:
        done: list[Any] = []
        for action in actions:
            if isinstance(action, AfterCommit) and isinstance(action.event, self.held):
                self.uncommitted.append(action.event)
            elif isinstance(action, AfterCommit):  # every other write is on disk at once
                event = action.event
                on_event = self.state.on_stored if isinstance(event, ResultsStored) else self.state.on_settled
                done += on_event(event, self.now)
            else:
                done.append(action)
        patches = decisions.of_type(SendPatch, done)
        self.patched = [patch.task_id for patch in patches]
        self.shown = patches[-1].token.fingerprint if patches else self.shown
        return done

    def token(self, name: str, expires_in: float = 1e9) -> list[Any]:
        return self.did(self.state.on_token(samples.token(name, self.now.wall + expires_in), self.now))

    def results(self, *ids: str, reply_to: str = "", leased_at: float = samples.LEASED_AT, **fields: Any) -> list[Any]:
        results = [samples.result(task_id, leased_at=leased_at, **fields) for task_id in ids]
        return self.did(self.state.on_results(m.Results("b1", reply_to, results), self.now))

    def respond(
        self, status: int, *ids: str, retry_after: float = 0.0, error: str = "", from_api: bool = True, words: str = ""
    ) -> list[Any]:
        responses = [ApiResponse(task_id, status, error, retry_after, self.shown, from_api, words) for task_id in ids]
        return self.did(self.state.on_responses(ApiResponses(responses), self.now))

    def polled(self) -> list[Any]:
        """A poll succeeded."""
        return self.did(self.state.on_api_reachable(m.ApiReachable(), self.now))

    def letters(self, *, replay: Iterable[str] = (), drop: Iterable[str] = ()) -> list[Any]:
        return self.did(self.state.on_dead_letters(m.DeadLetters(list(replay), list(drop)), self.now))

    def tick(self) -> list[Any]:
        return self.did(self.state.on_tick(self.now))

    def live(self, seconds: float, step: float = 0.1) -> list[Any]:
        """Tick for this many seconds; returns all actions."""
        done: list[Any] = []
        for _ in range(round(seconds / step)):
            self.after(step)
            done += self.state.on_tick(self.now)
        return self.did(done)

    @property
    def outbox(self) -> set[str]:
        return set(self.state.entries)


def sending(*ids: str, **config: Any) -> Publishing:
    """A publisher that is PATCHing the results of these tasks."""
    publisher = Publishing(**config)
    publisher.results(*ids)
    return publisher
