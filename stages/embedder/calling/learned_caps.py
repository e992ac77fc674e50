"""How large a request a provider takes: what is known of it, and what its refusals teach.

Compatible gateways have smaller caps than OpenAI, and do not tell them: 250 inputs, or 20,000 tokens. Each shows as a
request that is refused whole while each of its halves passes. That is taken for a lesson, so that later requests are
cut to size beforehand. A lesson is forgotten after a while: it may have been a hiccup.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import structlog

from common.process import metrics
from common.process.actions import Instant
from common.task_types import token_count
from stages.embedder.providers import Caps

FORGOTTEN_AFTER = 3600.0
"""Seconds that a lesson lasts; to learn it again costs one refused request, which no provider charges."""

_OF_TOKENS = re.compile(r"token|context|too long|length", re.IGNORECASE)
_OF_INPUTS = re.compile(r"\binputs?\b|batch|items?\b|array|instances|entries|texts|strings", re.IGNORECASE)

log = structlog.get_logger()


class LearnedCaps:
    """The caps of one provider, used by all threads."""

    def __init__(self, provider: str, known: Caps, clock: Callable[[], Instant]) -> None:
        self._provider = provider
        self._known = known
        self._clock = clock
        self._learned = known
        self._forget_at = 0.0
        self._passed_inputs = 0

    @property
    def now(self) -> Caps:
        """What to keep to."""
        if self._learned is not self._known and self._clock().mono >= self._forget_at:
            self._set(self._known)
        return self._learned

    def passed(self, inputs: int) -> None:
        """A request of so many inputs was taken."""
        self._passed_inputs = max(self._passed_inputs, inputs)

    def learn(self, refused: Sequence[str], halves: Iterable[Sequence[str]], words: str) -> None:
        """Learn from a request that was refused whole, in these words, while each half passed."""
        halves = list(halves)
        by_tokens = bool(_OF_TOKENS.search(words))
        if by_tokens == bool(_OF_INPUTS.search(words)):  # the words do not tell; perhaps so many inputs passed before
            by_tokens = len(refused) <= self._passed_inputs
        weigh = sizes if by_tokens else _ones
        cap = _between(words, max(sum(weigh(half)) for half in halves), sum(weigh(refused)))
        now = self.now
        caps = Caps(now.inputs, min(now.tokens, cap)) if by_tokens else Caps(min(now.inputs, cap), now.tokens)
        if caps != now:
            log.warning("smaller_requests", provider=self._provider, reason=words, **caps._asdict())
            self._forget_at = self._clock().mono + FORGOTTEN_AFTER
            self._set(caps)

    def split(self, positions: Sequence[int], texts: Sequence[str]) -> list[Sequence[int]]:
        """Cut the texts at these positions into requests that keep to the caps, in order."""
        caps = self.now
        chosen = [texts[position] for position in positions]
        if len(positions) <= caps.inputs and _surely_within(chosen, caps.tokens):
            return [positions]
        pieces: list[Sequence[int]] = []
        begin = weight = 0
        for end, size in enumerate(_ones(chosen) if _surely_within(chosen, caps.tokens) else sizes(chosen)):
            if end > begin and (end - begin >= caps.inputs or weight + size > caps.tokens):
                pieces.append(positions[begin:end])
                begin, weight = end, 0
            weight += size
        return [*pieces, positions[begin:]]

    def _set(self, caps: Caps) -> None:
        self._learned = caps
        for unit, cap, known in zip(Caps._fields, caps, self._known, strict=True):
            metrics.LEARNED_CAP.labels(self._provider, unit).set(cap if cap != known else 0)


def sizes(texts: Iterable[str]) -> list[int]:
    """Count the tokens of each text, as OpenAI's models do; for other models it is an estimate."""
    return [token_count.count(text) for text in texts]


def _ones(texts: Sequence[str]) -> list[int]:
    return [1] * len(texts)


def _surely_within(texts: Sequence[str], most: int) -> bool:
    """Whether they have at most so many tokens, seen without counting: a token is at least one byte."""
    if sum(map(len, texts)) * 4 <= most:
        return True
    return sum(len(text.encode()) for text in texts) <= most


def _between(words: str, passed: int, refused: int) -> int:
    """The cap that the words name, if it lies where it must; else what has passed."""
    named = [int(number.replace(",", "")) for number in re.findall(r"\b\d{1,3}(?:,\d{3})+\b|\b\d{1,9}\b", words)]
    return max((number for number in named if passed <= number < refused), default=passed)
