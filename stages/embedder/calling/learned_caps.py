"""How large a request to a provider may be: the known caps, and smaller ones learned from refusals.

Gateways that are compatible with OpenAI have smaller caps and do not publish them: 250 inputs, or 20,000 tokens. A cap
shows when a request is refused as a whole while each of its halves passes. From then on, larger requests are split
before they are sent. A learned cap is forgotten after an hour, because the refusal may have had another cause.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import structlog

from common.process import metrics
from common.process.actions import Instant
from common.task_types import token_count
from stages.embedder.providers import Caps

FORGET_AFTER_S = 3600.0
"""How long a learned cap is used. Learning it again costs one refused request, which no provider charges."""

_TOKEN_WORDS = re.compile(r"token|context|too long|length", re.IGNORECASE)
_INPUT_WORDS = re.compile(r"\binputs?\b|batch|items?\b|array|instances|entries|texts|strings", re.IGNORECASE)

log = structlog.get_logger()


class LearnedCaps:
    """The caps of one provider; used by all threads."""

    def __init__(self, provider: str, known: Caps, clock: Callable[[], Instant]) -> None:
        self._provider = provider
        self._known = known
        self._clock = clock
        self._learned = known
        self._forget_at = 0.0
        self._passed_inputs = 0

    @property
    def current(self) -> Caps:
        """The caps to keep to."""
        if self._learned is not self._known and self._clock().mono >= self._forget_at:
            self._set(self._known)
        return self._learned

    def request_passed(self, inputs: int) -> None:
        """Note that the provider took a request with this number of inputs."""
        self._passed_inputs = max(self._passed_inputs, inputs)

    def learn(self, refused: Sequence[str], halves: Iterable[Sequence[str]], words: str) -> None:
        """Learn a cap from a request that was refused as a whole, with these words, while each half passed."""
        halves = list(halves)
        by_tokens = bool(_TOKEN_WORDS.search(words))
        if by_tokens == bool(
            _INPUT_WORDS.search(words)
        ):  # the words do not tell: if as many inputs passed before, it was the tokens
            by_tokens = len(refused) <= self._passed_inputs
        weigh = sizes if by_tokens else _ones
        cap = _cap_between(words, max(sum(weigh(half)) for half in halves), sum(weigh(refused)))
        inputs, tokens = self.current
        caps = Caps(inputs, min(tokens, cap)) if by_tokens else Caps(min(inputs, cap), tokens)
        if caps != (inputs, tokens):
            log.warning("request_cap_learned", provider=self._provider, reason=words, **caps._asdict())
            self._forget_at = self._clock().mono + FORGET_AFTER_S
            self._set(caps)

    def split(self, positions: Sequence[int], texts: Sequence[str]) -> list[Sequence[int]]:
        """Split positions into requests that keep to the caps, in their order. `texts` are all texts of the batch."""
        caps = self.current
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
    """Count the tokens of each text as OpenAI's models do; for other models this is an estimate."""
    return [token_count.count(text) for text in texts]


def _ones(texts: Sequence[str]) -> list[int]:
    return [1] * len(texts)


def _surely_within(texts: Sequence[str], max_tokens: int) -> bool:
    """Whether the texts are so short that they need not be counted: a token is at least one byte."""
    if sum(map(len, texts)) * 4 <= max_tokens:
        return True
    return sum(len(text.encode()) for text in texts) <= max_tokens


def _cap_between(words: str, passed: int, refused: int) -> int:
    """The cap: the number that the provider's words name, if it is below `refused`; otherwise what has passed."""
    named = [int(number.replace(",", "")) for number in re.findall(r"\b\d{1,3}(?:,\d{3})+\b|\b\d{1,9}\b", words)]
    return max((number for number in named if passed <= number < refused), default=passed)
