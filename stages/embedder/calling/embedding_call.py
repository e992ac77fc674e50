"""A provider call for embeddings: its request, the check of its vectors, and its metrics.

`embed_texts` sends texts to one provider until each has a vector or a final failure, or is deferred.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from common.failures.errors import Permanent, Transient
from common.process import metrics
from common.task_types import token_count
from common.wire.messages import Failure
from stages.embedder.calling.backend import Backend
from stages.embedder.calling.call_actions import NotCovered, ProviderUnavailable, Succeeded
from stages.embedder.calling.driver import CallRuntime, Driver
from stages.embedder.calling.evidence import CANARY
from stages.embedder.calling.request_budget import RequestBudget
from stages.embedder.calling.vector_guard import COUNT, LENGTH, CheckedVectors, Vector, VectorGuard
from stages.embedder.providers import (
    BadInput,
    Embeddings,
    NeedsOperator,
    UnknownModel,
    may_be_paid,
    odd_forms,
    sending,
)
from stages.embedder.providers.request_metrics import counted_embed

INVALID_VECTOR = "invalid_vector"
"""The failure's code if a provider gave no usable vector for a text, twice."""
MAX_CANARIES = 4
"""Canaries that one response may need, if the first responses of a model have vectors of different lengths."""
UNDECIDED_RETRY_S = 1.0
"""When a batch is tried again whose vectors could not be judged."""
MOCK = "mock"
"""The provider whose vectors need no evidence: they mean nothing, and are made here."""

log = structlog.get_logger()


class EmbeddingExchange:
    """Requests for vectors from one provider."""

    def __init__(
        self, backend: Backend, model: str, task_model: str, guard: VectorGuard, budget: RequestBudget,
        now: Callable[[], float],
    ) -> None:  # fmt: skip
        """`model` is the provider's name of the model, `task_model` that of the tasks. They differ for a fallback."""
        self._provider = backend.provider
        self._gate = backend.gate
        self._model = model
        self._task_model = task_model
        self._guard = guard
        self._budget = budget
        self._now = now
        self._is_mock = backend.provider.name == MOCK

    def request(self, texts: Sequence[str]) -> Embeddings:
        """Make one request. A canary goes first if nothing is known of the model's vectors, or they were unusable."""
        is_doubted = self._guard.lengths.is_doubted(self._provider.name, self._model)
        if self._is_mock or list(texts) == [CANARY] or not self._canary_first(is_doubted=is_doubted):
            return counted_embed(self._provider, self._model, texts)
        if self._budget.is_limited:  # the canary took the place of a text in the quotas: the batch is charged again
            raise sending.NotCoveredError
        return counted_embed(self._provider, self._model, texts)

    def _canary_first(self, *, is_doubted: bool) -> bool:
        """Send a canary if it must go before the texts; returns whether it was sent."""
        lengths = self._guard.lengths
        if is_doubted:
            checked = self._ask_canary()
            if checked.rejected:
                raise NeedsOperator(self._words(checked), model_only=True)
            return True
        if not lengths.is_unknown(self._task_model):
            return False
        with lengths.first_canary:  # one is enough, however many batches begin
            if lengths.is_unknown(self._task_model):
                self._ask_canary()
        return True

    def check(
        self, texts: Sequence[str], response: Embeddings, now: float
    ) -> Succeeded[Vector] | NotCovered | ProviderUnavailable:
        """Let the guard check the vectors. What is rejected is a text's fault only if the provider served others."""
        try:
            return self._checked(texts, response, now)
        except sending.NotCoveredError:  # a canary is needed, and goes first next time
            self._guard.lengths.doubt(self._provider.name, self._model)
            return NotCovered(now)

    def most_tokens(self, text: str) -> int:
        """An upper bound of the tokens of a text."""
        return token_count.upper_bound(self._model, text)

    def _checked(
        self, texts: Sequence[str], response: Embeddings, now: float
    ) -> Succeeded[Vector] | ProviderUnavailable:
        name = self._provider.name
        if not self._is_mock and not self._is_length_known(response):
            return ProviderUnavailable(now, now + UNDECIDED_RETRY_S)
        checked = self._guard.check(self._task_model, response, len(texts), name)
        metrics.EMBEDDED_INPUTS.labels(name, "embedded").inc(len(texts) - len(checked.rejected))
        if not checked.rejected:
            self._guard.note_served(name, self._model)
            return Succeeded(now, checked.vectors)
        reason = next(iter(checked.rejected.values()))
        log.warning("vectors_rejected", provider=name, model=self._model, inputs=len(checked.rejected), reason=reason)
        if checked.kind == LENGTH and self._task_model != self._model:
            return self._refuse_fallback(reason, now)
        if not self._is_mock and not self._is_served(texts, checked):
            return self._refuse_model(self._words(checked), now)
        rejected = {
            index: Failure(INVALID_VECTOR, f"{name} gave no usable vector: {why}")
            for index, why in checked.rejected.items()
        }
        return Succeeded(now, checked.vectors, rejected, checked.kind == COUNT, checked.wrong_length)

    def _is_length_known(self, response: Embeddings) -> bool:
        """Let a first response count, and canaries with it, until enough of them agree on a length."""
        if not response.matrix.size:
            return True  # this will be refused for another reason
        lengths, length = self._guard.lengths, response.matrix.shape[1]
        if lengths.objection(self._task_model, length, response.asked) is not None:
            return True
        lengths.vote(self._task_model, length)
        for _ in range(MAX_CANARIES):
            if lengths.objection(self._task_model, length, response.asked) is not None:
                return True
            try:
                self._ask_canary(after_texts=True)
            except (Transient, Permanent) as error:
                log.warning("vector_length_undecided", model=self._model, reason=str(error))
                return False
        return False

    def _is_served(self, texts: Sequence[str], checked: CheckedVectors) -> bool:
        """Whether the provider serves the model, so that the rejected texts may be asked for again, or fail.

        Others in the same response, or later than a text's first rejection, are the evidence. If there are none, a
        canary makes it. A single text is simply asked for once more before that.
        """
        rejected = [texts[index] for index in checked.rejected]
        are_first = [self._guard.note_rejected(self._task_model, text) for text in rejected]
        if len(rejected) < len(texts):
            self._guard.note_served(self._provider.name, self._model)
        elif len(texts) == 1 and are_first[0]:
            return True
        if self._guard.was_served_since(self._provider.name, self._model, self._task_model, rejected):
            return True
        try:
            return not self._ask_canary(after_texts=True).rejected
        except (Transient, Permanent):
            return False
        except sending.NotCoveredError:
            self._guard.remember_rejected(self._task_model, rejected)
            raise

    def _ask_canary(self, *, after_texts: bool = False) -> CheckedVectors:
        """Ask for the vector of a short fixed text: it can't be to blame for what comes.

        `after_texts`: the batch has sent what it was charged for. Under a quota, a later batch sends the canary.
        """
        if not self._budget.allows_canary or (after_texts and self._budget.is_limited):
            raise sending.NotCoveredError
        began = self._now()
        try:
            with sending.covered_until(self._budget.send_by):
                sending.check()
                response = counted_embed(self._provider, self._model, [CANARY])
        except BadInput as error:
            words = f"{self._provider.name} refuses every request for {self._model}, a canary included: {error}"
            if error.names_unknown_model:
                raise UnknownModel(words) from error
            raise NeedsOperator(words, model_only=error.names_model) from error
        except Transient as error:
            self._budget.canaries += may_be_paid(error)
            raise
        finally:
            self._budget.add_request(sending.written_at() or began, self._now())
        self._budget.canaries += 1
        self._budget.add_payment((), odd_forms.bounded(response.tokens) or len(CANARY))
        if response.matrix.size:
            self._guard.lengths.vote(self._task_model, response.matrix.shape[1])
        checked = self._guard.check(self._task_model, response, 1, self._provider.name)
        if not checked.rejected:
            self._guard.note_served(self._provider.name, self._model)
        return checked

    def _words(self, checked: CheckedVectors) -> str:
        reason = next(iter(checked.rejected.values()))
        return f"{self._provider.name} sends no usable vectors: {reason}"

    def _refuse_model(self, words: str, now: float) -> ProviderUnavailable:
        """The vectors of this model are unusable, whatever the texts: nothing is sent until a canary's is usable."""
        self._guard.lengths.doubt(self._provider.name, self._model)
        self._gate.block_model(self._model, words)
        return ProviderUnavailable(now, self._gate.cooldown_until(self._model))

    def _refuse_fallback(self, reason: str, now: float) -> ProviderUnavailable:
        """A fallback with vectors of another length is another model, whatever FALLBACK_MODELS says."""
        words = f"FALLBACK_MODELS maps {self._task_model} to {self._model}, which is another model: {reason}"
        return self._refuse_model(words, now)


class EmbeddingOutcomes(NamedTuple):
    """The outcome of a call for each text."""

    by_text: dict[str, Vector | Failure | None]
    """None: deferred."""
    wait_until: float
    """When the deferred texts may be sent again (monotonic seconds)."""


def embed_texts(
    backend: Backend,
    model: str,
    task_model: str,
    texts: Sequence[str],
    budget: RequestBudget,
    guard: VectorGuard,
    runtime: CallRuntime,
) -> EmbeddingOutcomes:
    """Embed distinct texts with one provider; for `model` and `task_model` see `EmbeddingExchange`."""
    exchange = EmbeddingExchange(backend, model, task_model, guard, budget, lambda: runtime.clock().mono)
    rechecks = guard.take_rejected(task_model, texts)
    call = Driver(backend, model, texts, budget, runtime, exchange).run(rechecks)
    guard.remember_rejected(task_model, [texts[position] for position in call.open_rechecks])
    for outcome in call.outcomes:
        if isinstance(outcome, Failure):
            label = "invalid" if outcome.code == INVALID_VECTOR else "refused"
            metrics.EMBEDDED_INPUTS.labels(backend.provider.name, label).inc()
    return EmbeddingOutcomes(dict(zip(texts, call.outcomes, strict=True)), call.wait_until)
