"""The provider, which records what reaches it and what it charges for, and its client in an embedder.

What is written reaches the provider even if the embedder dies at that moment. `mode` says how it responds now:

    normal
    down         every request fails: 500, 503, or no response
    unreachable  no connection
    slow         a connection takes seconds
    throttled    429
    refusing     400 for every request, as from a gateway whose budget is used up
    closed       it needs an operator: a revoked key
    lossy        it embeds and charges, but the response is lost
    long         it embeds and charges, but the vectors have a wrong length
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from common.failures.errors import Throttled, Transient
from stages.embedder.calling.evidence import CANARY
from stages.embedder.providers import BadInput, Caps, Embeddings, NeedsOperator, NotSent, ProviderServerError, sending
from tests.simulator.lockstep import pause
from tests.simulator.world import World

LENGTH = 4
WRONG_LENGTH = 6
MINUTE_S = 60.0
SLOW_SHARE = 0.02
"""The share of the requests that wait seconds for a connection."""
TEXT = "text of "


class Limits(NamedTuple):
    """What the provider allows in any minute; 0: any number."""

    tasks: int
    requests: int


class Provider:
    """Embeds texts and charges for them; a second payment for the same text gives another vector."""

    def __init__(self, world: World, limits: Limits) -> None:
        self.world = world
        self.limits = limits
        self.mode = "normal"
        self.refused_model = ""
        """The model that it does not serve now; empty for none."""
        self.is_quick = False
        """Whether every request is short, so that waits show what the service does."""
        self.paid: dict[str, int] = {}
        """Task id → how often it was charged."""
        self.excused: dict[str, int] = {}
        """Task id → how many of these were its own fault: the response was lost, or unusable."""
        self._tasks: deque[tuple[float, int]] = deque()
        self._requests: deque[tuple[float, int]] = deque()

    def respond(self, model: str, texts: Sequence[str]) -> Embeddings | Exception:
        """Handle a request that has arrived."""
        self._count(self._requests, 1, self.limits.requests, "requests")
        refusal = self._refusal(model, texts)
        if refusal is not None:
            return refusal
        self._count(self._tasks, len(texts), self.limits.tasks, "tasks")
        is_bad = self.mode in {"lossy", "long"}
        rows = np.array([self._vector(text, is_bad=is_bad) for text in texts], np.float32)
        if self.mode == "lossy":
            return Transient("the response was lost")
        if self.mode == "long":
            rows = np.concatenate([rows, rows[:, : WRONG_LENGTH - LENGTH]], axis=1)
        return Embeddings(rows, 5 * len(texts))

    def _refusal(self, model: str, texts: Sequence[str]) -> Exception | None:  # noqa: PLR0911  one for each
        random = self.world.random
        match self.mode:
            case "down":
                errors = (Transient("503"), ProviderServerError("500"), Transient("no response"))
                return random.choice(errors)
            case "throttled":
                return Throttled("429", random.choice((0.5, 3.0, 20.0)))
            case "refusing":
                return BadInput("budget exceeded")
            case "closed":
                return NeedsOperator("invalid api key")
        if model == self.refused_model:
            return random.choice((BadInput("no such model"), NeedsOperator("no such model", model_only=True)))
        natures = {nature_of(text) for text in texts}
        if "unreadable" in natures:
            return BadInput("an input cannot be read")
        return ProviderServerError("500") if "crashing" in natures else None

    def _vector(self, text: str, *, is_bad: bool) -> list[float]:
        if text == CANARY:
            return [1.0, 0.0, 0.0, 0.0]
        task_id = text.removeprefix(TEXT)
        paid = self.paid[task_id] = self.paid.get(task_id, 0) + 1
        is_zero = nature_of(text) == "bad"
        if is_bad or is_zero:
            self.excused[task_id] = self.excused.get(task_id, 0) + 1
        return [0.0] * LENGTH if is_zero else [1.0, paid / 8, len(task_id) / 8, 0.0]

    def _count(self, times: deque[tuple[float, int]], count: int, limit: int, unit: str) -> None:
        now = self.world.now
        times.append((now, count))
        while now - times[0][0] >= MINUTE_S:
            times.popleft()
        # a clock that is set ahead takes the quota windows with it: docs/quotas.md
        if limit and not self.world.injected["clock ahead"]:
            found = sum(number for _, number in times)
            assert found <= limit, f"{found} {unit} reached the provider in a minute, {limit} are allowed"


class ProviderClient:
    """What an embedder has of the provider; its `embed` runs on a lockstep thread."""

    name = "simulated"
    caps = Caps(2048, 300_000)
    free = False
    vendor = "simulated"

    def __init__(self, provider: Provider, embedder: str) -> None:
        self._provider = provider
        self._embedder = embedder

    def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Make one request."""
        provider, random, found = self._provider, self._provider.world.random, list[Embeddings | Exception]()
        is_slow = provider.mode == "slow" or (random.random() < SLOW_SHARE and not provider.is_quick)
        pause(random.choice((2.0, 5.0, 12.0)) if is_slow else random.choice((0.0, 0.001, 0.02)))
        if provider.mode == "unreachable":
            raise NotSent("no connection")
        sending.check()
        sending.note_written()
        in_network_s = random.choice((0.0005, 0.01, 0.3))

        def arrive() -> None:
            found.append(provider.respond(model, texts))
            if provider.world.story is not None:
                words = f"request for {model} of {self._embedder}: {', '.join(t.removeprefix(TEXT) for t in texts)}"
                provider.world.tell("provider", f"{words}: {described(found[0])}")

        provider.world.later(in_network_s, arrive)
        pause(in_network_s + random.choice((0.01, 0.1) if provider.is_quick else (0.01, 0.1, 0.3, 1.0, 4.0)))
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    def has(self, model: str) -> bool | None:
        return None

    def notices(self) -> Mapping[str, str]:
        return {}

    def close(self) -> None:
        """Nothing is open."""


def nature_of(text: str) -> str:
    """The nature of the task that a text belongs to; `canary` for a canary."""
    return text.removeprefix(TEXT).rstrip("0123456789")


def described(response: Embeddings | Exception) -> str:
    """A response in the words of a story."""
    if isinstance(response, Embeddings):
        return f"{len(response.matrix)} vectors of {response.matrix.shape[1]}"
    return f"{type(response).__name__} ({response})"
