"""A scripted provider, a clock that moves only when it is told to, and an engine made of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from tempfile import mkdtemp
from typing import Any

import numpy as np

from common.process.actions import Instant
from common.settings.settings import Settings
from stages.embedder.calling.evidence import CANARY
from stages.embedder.engine import EmbeddingEngine
from stages.embedder.providers import BadInput, Caps, Embeddings, Provider, mock
from tests import samples

MODEL = "some-model"
LENGTH = 8
"""How long the vectors of a scripted provider are, whatever the model."""
Responder = Callable[[Sequence[str]], Embeddings | Exception | None]
Step = Embeddings | Exception | Responder | None
"""A response or error, or a function of the texts that returns one; None: correct vectors."""


def settings(**fields: Any) -> Settings:
    """Settings for OpenAI, without a cache."""
    usual = {
        "processing_mode": "openai", "openai_api_key": "sk-0123456789", "embedding_cache_size": 0,
        "state_dir": mkdtemp(prefix="atp-"),
    }  # fmt: skip
    return samples.settings(**{**usual, **fields})


def are_vectors(outcomes: Iterable[object]) -> list[bool]:
    """Which texts have a vector."""
    return [isinstance(outcome, np.ndarray) for outcome in outcomes]


def true_answer(texts: Sequence[str], dimensions: int = LENGTH) -> Embeddings:
    return Embeddings(mock.vectors(MODEL, texts, dimensions), sum(map(len, texts)))


class ScriptedProvider:
    """Responds as its script says, then with correct vectors. Notes all requests, and the texts it was paid for."""

    free = False
    vendor = "scripted"

    def __init__(self, *script: Step, name: str = "scripted", inputs: int = 2048) -> None:
        self.name = name
        self.caps = Caps(inputs, 300_000)
        self.script = list(script)
        self.always: Step = None
        self.requests: list[list[str]] = []
        self.paid: list[str] = []
        self.models: list[str] = []
        self.asked = LENGTH
        """The dimensions that each request asks for, as far as the response tells."""
        self.having: frozenset[str] | None = None
        self.lock = threading.Lock()

    def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        with self.lock:
            self.requests.append(list(texts))
            self.models.append(model)
            step = self.script.pop(0) if self.script else self.always
        answer = step(texts) if callable(step) else step
        if isinstance(answer, Exception):
            raise answer
        with self.lock:
            self.paid.extend(texts)
        return (true_answer(texts) if answer is None else answer)._replace(asked=self.asked)

    @property
    def canaries(self) -> int:
        """How many of the requests were canaries."""
        return self.requests.count([CANARY])

    @property
    def sent(self) -> list[list[str]]:
        """The requests without the canaries."""
        return [texts for texts in self.requests if texts != [CANARY]]

    def has(self, model: str) -> bool | None:
        return None if self.having is None else model in self.having

    def notices(self) -> Mapping[str, str]:
        return {}

    def close(self) -> None:
        pass


class HeldReply:
    """A step of a script: a request that runs until the test sets `go`, and then has this outcome."""

    def __init__(self, answer: Exception | None = None) -> None:
        self._answer = answer
        self.began = threading.Event()
        self.go = threading.Event()

    def __call__(self, texts: Sequence[str]) -> Exception | None:
        self.began.set()
        assert self.go.wait(30)
        return self._answer


def poisoned(bad: frozenset[str] | set[str]) -> Responder:
    """Refuse every request with one of these texts in it."""
    return lambda texts: BadInput("cannot be read") if bad.intersection(texts) else None


class Clock:
    """Both clocks. A wait moves them by its length, and takes no time."""

    def __init__(self) -> None:
        self.mono = 1000.0
        self.offset = 1_800_000_000.0
        self.waits: list[float] = []

    def __call__(self) -> Instant:
        return Instant(self.mono, self.mono + self.offset)

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.mono += seconds
        return False


def engine(*made: Provider, clock: Clock | None = None, **fields: Any) -> EmbeddingEngine:
    """An engine with these providers, whose waits take no time."""
    clock = clock or Clock()
    for provider in made:
        if isinstance(provider, ScriptedProvider):
            fields = {"embedding_dimensions": LENGTH, **fields}
            provider.asked = fields["embedding_dimensions"]
    return EmbeddingEngine(settings(**fields), made=made, clock=clock, wait=clock.wait)
