"""Texts to one provider, until each has a vector or a reason why it never will, or now is not the time.

    request refused for its input     halve it, until the bad texts are alone          BadInput
    vectors that the guard objects to ask once more, for those texts only, then fail    guard.py
    outage, timeout, "too many"       back off and retry, MAX_RETRIES times, then stop   Transient
    "I failed", twice                 halve it: a text that it fails on goes back alone  ProviderServerError
    nothing that waiting would mend   stop at once; the gate says why                    NeedsOperator
    a quota has no more for it        it comes again, in a batch that is charged anew    tally.py

What was embedded before it stops is kept: it is paid for.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from common.failures.errors import Permanent, Throttled, Transient
from common.failures.retry import Backoff
from common.process import metrics
from common.process.actions import Instant
from common.task_types import token_count
from common.wire.messages import Failure
from stages.embedder.calling.gate import Gate
from stages.embedder.calling.learned_caps import LearnedCaps
from stages.embedder.calling.request_budget import Tally
from stages.embedder.calling.vector_guard import COUNT, LENGTH, Guard, Vector
from stages.embedder.providers import (
    AskAgain,
    BadInput,
    Embeddings,
    NeedsOperator,
    NoModelYet,
    NotSent,
    Provider,
    ProviderServerError,
)
from stages.embedder.providers.request_metrics import counted_embed

PATIENCE = 10.0
"""Seconds that a batch waits in all for its provider before it goes back: a slot is for working."""
SET_ASIDE = 60.0
"""Seconds that a text goes back for which the provider failed on while it served others."""

log = structlog.get_logger()


class Backend(NamedTuple):
    """A provider, and what is known of it."""

    provider: Provider
    gate: Gate
    caps: LearnedCaps


class Tools(NamedTuple):
    """What all sendings share."""

    guard: Guard
    backoff: Backoff
    retries: int
    clock: Callable[[], Instant]
    wait: Callable[[float], bool]
    """Wait so many seconds; returns True, and at once, when the embedder is told to stop."""
    stopping: Callable[[], bool]
    """Whether it is told to stop: what is under way ends, and no further request is begun."""


class Lesson:
    """A request that was refused whole; if both of its halves pass, it was too large."""

    def __init__(self, texts: list[str], halves: list[list[str]], words: str) -> None:
        self.texts = texts
        self.halves = halves
        self.words = words
        self.passed = 0


class Piece(NamedTuple):
    """Part of the texts, by position, that goes into one request if the caps allow."""

    positions: Sequence[int]
    again: bool = False
    """Whether the guard has objected to these before."""
    lesson: Lesson | None = None
    suspect: bool = False
    """Whether the provider failed on a request with these in it, perhaps because of one of them."""


class NotNow(Exception):
    """The provider cannot be used before `until` (seconds, monotonic)."""

    def __init__(self, until: float) -> None:
        super().__init__(until)
        self.until = until


class Sending:
    """One batch's texts on their way to one provider."""

    def __init__(self, backend: Backend, model: str, texts: Sequence[str], tally: Tally, tools: Tools) -> None:
        self._provider, self._gate, self._caps = backend
        self._model = model
        """As this provider calls it."""
        self._texts = texts
        self._tally = tally
        self._tools = tools
        self._waited = 0.0
        self._doubts = 2 * math.ceil(math.log2(len(texts) + 1)) + 2
        self._fallback_of: str | None = None
        self.outcomes: list[Vector | Failure | None] = [None] * len(texts)
        """None: not now."""
        self.until = 0.0
        """When to try those again; seconds of the monotonic clock."""

    def run(self, task_model: str) -> None:
        """Fill `outcomes`. `task_model` is what the tasks call the model; another name here means a fallback."""
        self._fallback_of = task_model if task_model != self._model else None
        pieces = self._first_pieces(task_model)
        try:
            while pieces:
                piece = pieces.pop()
                cut = self._caps.split(piece.positions, self._texts)
                if len(cut) > 1:
                    pieces.extend(Piece(part, piece.again, suspect=piece.suspect) for part in reversed(cut))
                    continue
                for rest in reversed(self._send(piece, task_model)):
                    # suspects come last: each success in between shows the breaker that it is no outage
                    (pieces.appendleft if rest.suspect else pieces.append)(rest)
        except NotNow as not_now:
            self.until = not_now.until

    def _first_pieces(self, task_model: str) -> deque[Piece]:
        """All texts; those that the guard has objected to in an earlier batch apart."""
        again = self._tools.guard.recall(task_model, self._texts)
        if not again:
            return deque([Piece(range(len(self._texts)))])
        others = [position for position in range(len(self._texts)) if position not in again]
        return deque(Piece(part, part is again) for part in (again, others) if part)

    def _leave(self, piece: Piece, texts: list[str], task_model: str) -> list[Piece]:
        """Send these no more: they come again in another batch."""
        self._tally.left.update(dict.fromkeys(texts, len(texts)))
        if piece.again:
            self._tools.guard.remember(task_model, texts)
        return []

    def _send(self, piece: Piece, task_model: str) -> list[Piece]:
        """Make the request for a piece; return what is still to be done about it."""
        texts = [self._texts[position] for position in piece.positions]
        if not self._tally.allows(texts):
            return self._leave(piece, texts, task_model)
        try:
            answer = self._answer(texts, suspect=piece.suspect)
        except AskAgain:
            return [piece]
        except ProviderServerError as error:
            return self._suspected(piece, error)
        except BadInput as error:
            return self._refused(piece, texts, error)
        except NeedsOperator as error:
            raise NotNow(self._gate.closed_until(self._model) or self._later(1, error)) from error
        except Permanent as error:
            self._fail(piece.positions, Failure(error.code, str(error)), "refused")
            return []
        self._learn(piece, texts)
        return self._checked(piece, answer, task_model)

    def _answer(self, texts: list[str], *, suspect: bool) -> Embeddings:
        """Make one request, and retry it through what passes; raise `ProviderServerError` if halving may help."""
        failures = 0
        while True:
            self._pass_gate()
            began = self._tools.clock().mono
            self._tally.requests += 1
            try:
                with self._gate.outcome(self._model):
                    answer = counted_embed(self._provider, self._model, texts)
            except NoModelYet as error:
                raise NotNow(self._tools.clock().mono + error.delay) from error
            except Transient as error:
                failures += 1
                self._failed(failures, error, texts, suspect=suspect)
            except (AskAgain, BadInput):
                raise
            except Permanent:
                self._tally.reached.update(texts)
                raise
            else:
                self._tally.reached.update(texts)
                # where nothing is reported, the quota stays charged with the estimate: a token is at least one byte
                self._tally.tokens += answer.tokens or sum(len(text.encode()) for text in texts)
                self._gate.rest(answer.pause, "its quota is nearly used up, by its own headers")
                return answer
            finally:
                self._tally.made(began, self._tools.clock().mono)

    def _pass_gate(self) -> None:
        """Wait while the provider asks for patience; where more is wrong, others may be tried meanwhile."""
        if self._tools.stopping():
            raise NotNow(self._tools.clock().mono)
        while until := self._gate.enter(self._model):
            if self._gate.broken(self._model):
                raise NotNow(until)
            self._wait_until(until)

    def _failed(self, failures: int, error: Transient, texts: list[str], *, suspect: bool) -> None:
        """Wait before the next try; raise `NotNow` after the last, `ProviderServerError` where halving may help."""
        provider = self._provider.name
        log.warning("provider_failed", provider=provider, model=self._model, failures=failures, reason=str(error))
        until = self._later(failures, error)
        if not isinstance(error, NotSent | Throttled):  # nobody knows what became of it: it may have been paid for
            self._tally.reached.update(texts)
            self._tally.tokens += sum(token_count.upper_bound(self._model, text) for text in texts)
        if failures > self._tools.retries:
            raise NotNow(max(until, self._gate.closed_until(self._model)))
        last = not self._tally.allows(texts)
        if isinstance(error, ProviderServerError) and (suspect or (len(texts) > 1 and (last or failures == 2))):
            self._wait_until(until)
            raise error
        if last:
            raise NotNow(max(until, self._gate.closed_until(self._model)))
        self._wait_until(until)

    def _later(self, failures: int, error: Exception) -> float:
        return self._tools.clock().mono + self._tools.backoff.delay(failures, error)

    def _wait_until(self, until: float) -> None:
        seconds = until - self._tools.clock().mono
        self._waited += max(seconds, 0.0)
        if self._waited > PATIENCE or self._tools.wait(seconds):
            raise NotNow(until)

    def _refused(self, piece: Piece, texts: list[str], error: BadInput) -> list[Piece]:
        """Halve what was refused; a text alone fails, with the provider's words."""
        if len(texts) == 1:
            words = f"{self._provider.name} refused the text: {error}"
            self._fail(piece.positions, Failure(error.code, words), "refused")
            return []
        middle = (len(texts) + 1) // 2
        lesson = Lesson(texts, [texts[:middle], texts[middle:]], str(error))
        halves = (piece.positions[:middle], piece.positions[middle:])
        log.info("batch_halved", provider=self._provider.name, model=self._model, inputs=len(texts))
        return [Piece(half, piece.again, lesson) for half in halves]

    def _suspected(self, piece: Piece, error: ProviderServerError) -> list[Piece]:
        """Halve what the provider failed on twice; a text alone goes back for a while, and holds up no others."""
        positions, provider = piece.positions, self._provider.name
        if len(positions) == 1:
            log.warning("text_set_aside", provider=provider, model=self._model, seconds=SET_ASIDE, reason=str(error))
            self.until = max(self.until, self._tools.clock().mono + SET_ASIDE)
            return []
        log.info("batch_halved", provider=provider, model=self._model, inputs=len(positions))
        middle = (len(positions) + 1) // 2
        return [Piece(half, piece.again, suspect=True) for half in (positions[:middle], positions[middle:])]

    def _learn(self, piece: Piece, texts: list[str]) -> None:
        self._caps.passed(len(texts))
        if piece.lesson is not None:
            piece.lesson.passed += 1
            if piece.lesson.passed == len(piece.lesson.halves):
                self._caps.learn(piece.lesson.texts, piece.lesson.halves, piece.lesson.words)

    def _checked(self, piece: Piece, answer: Embeddings, task_model: str) -> list[Piece]:
        """Keep the vectors that are as they should be; return what is to be asked for again."""
        positions, name = piece.positions, self._provider.name
        checked = self._tools.guard.check(task_model, answer, len(positions), name)
        if not checked.wrong:
            metrics.EMBEDDED_INPUTS.labels(name, "embedded").inc(len(positions))
        for position, vector in zip(positions, checked.vectors, strict=True):
            if vector is not None:
                self.outcomes[position] = vector
        if not checked.wrong:
            return []
        metrics.EMBEDDED_INPUTS.labels(name, "embedded").inc(len(positions) - len(checked.wrong))
        reason = next(iter(checked.wrong.values()))
        log.warning("vectors_unusable", provider=name, model=self._model, inputs=len(checked.wrong), reason=reason)
        if checked.kind == LENGTH and self._fallback_of is not None:
            raise self._another_model(reason)
        if not piece.again:
            return [Piece([positions[index] for index in sorted(checked.wrong)], again=True)]
        if checked.kind == COUNT and len(positions) > 1 and self._doubts > 0:
            self._doubts -= 1  # one text may be what the provider loses: look for it, but not for ever
            middle = (len(positions) + 1) // 2
            return [Piece(positions[:middle], again=True), Piece(positions[middle:], again=True)]
        for index, why in checked.wrong.items():
            self._fail([positions[index]], Failure("invalid_vector", f"{name} gave no usable vector: {why}"), "invalid")
        return []

    def _another_model(self, reason: str) -> NotNow:
        """A fallback whose vectors are of another length is another model, whatever FALLBACK_MODELS says."""
        words = f"FALLBACK_MODELS maps {self._fallback_of} to {self._model}, another model: {reason}"
        self._gate.bar(self._model, words)
        return NotNow(self._gate.closed_until(self._model))

    def _fail(self, positions: Sequence[int], failure: Failure, outcome: str) -> None:
        metrics.EMBEDDED_INPUTS.labels(self._provider.name, outcome).inc(len(positions))
        for position in positions:
            self.outcomes[position] = failure
