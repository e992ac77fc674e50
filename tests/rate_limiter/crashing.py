"""An embedder that dies with certain batches."""

from __future__ import annotations

from typing import Any

from common.wire import messages as m
from tests.decisions import of_type
from tests.rate_limiter.limiter import Limiter, ids_of


class CrashingEmbedder:
    """One embedder that dies with each batch for which `kills` is true, and starts again at once."""

    def __init__(self, limiter: Limiter, kills: Any = lambda _: True) -> None:
        self.limiter = limiter
        self.kills = kills
        self.boot = 0
        self.poison_ids: list[str] = []
        self.done: set[str] = set()
        limiter.ready(1, boot="0")

    def die(self) -> list[Any]:
        """The embedder reports its batch, dies, and starts with another boot id."""
        batches = self.limiter.batches
        boot = str(self.boot)
        self.boot += 1
        self.limiter.ready(0, *batches, boot=boot)
        return self.resend(self.limiter.ready(1, boot=str(self.boot)))

    def resend(self, done: list[Any]) -> list[Any]:
        """Act as the fetcher: tasks that were deferred are still pending, so they are sent again."""
        batches = list(self.limiter.batches)
        for deferred in of_type(m.Deferred, done):
            if deferred.reason == "poison":
                self.poison_ids += deferred.ids
            else:
                self.limiter.tasks(*deferred.ids)
                batches += self.limiter.batches
        self.limiter.batches = batches
        return done

    def wait(self) -> None:
        """Let one second pass without a batch."""
        self.resend(self.limiter.after(1.0).ready(1, boot=str(self.boot)))
        if not self.limiter.batches:
            self.resend(self.limiter.tick())

    def live(self, seconds: float) -> int:
        """Process batches for this many seconds; returns the number of deaths."""
        died = 0
        end = self.limiter.now.mono + seconds
        while self.limiter.now.mono < end:
            if not self.limiter.batches:
                self.wait()
                continue
            batch = self.limiter.batch
            self.limiter.after(0.1)
            if self.kills(ids_of(batch)):
                self.die()
                died += 1
            else:
                self.done.update(ids_of(batch))
                self.resend(self.limiter.finished(batch, boot=str(self.boot)))
        return died
