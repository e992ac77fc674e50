"""Providers: the services that embed texts. Each is one file, and one line in `registry.py`.

Another Python package adds a provider with an entry point in the group `ai_task_processor.providers`: the name is what
FALLBACK_MODELS and the logs use, the value is a function of the settings that returns a `Provider`.

A provider makes one request and does nothing else: it does not retry, split or check vectors. It raises one of these
errors, and the rest of this package knows what to do about each:

    Transient            an outage, a timeout, an incomplete response: retry with back-off
    NotSent              the same, but the request certainly never left: its charge can be refunded
    ProviderServerError  the same, but one of the texts may be the cause: halve the request to find out
    Throttled(delay)     send this provider nothing for `delay` seconds
    NoModelYet(delay)    send nothing for this model for `delay` seconds: it is being downloaded, or that failed
    AskAgain             the provider has learned how to ask this server: make the same request again
    BadInput             the request is refused, perhaps because of its texts: a canary decides, then halving finds them
    NeedsOperator        retries and halving do not help, an operator must act: a bad key, no quota
    UnknownModel         the same for one model: the provider does not have it, or the key has no right to it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from common.failures.errors import Permanent, Throttled, Transient

Matrix = NDArray[np.float32]
"""(n, d) float32: one vector for each text."""


class MaybeAboutModel:
    """What the words of a refusal say about the model; only used if a canary is refused with them."""

    names_model = False
    """Whether they are about the model: then other models may be served."""
    names_unknown_model = False
    """Whether they say that the provider does not have the model, or does not give it to this key."""


class NotSent(Transient):
    """There was no connection: the texts certainly did not reach the provider."""


def may_be_paid(error: Transient) -> bool:
    """Whether a request that failed with this error may have been embedded and paid for: its outcome is unknown."""
    return not isinstance(error, NotSent | Throttled)


class ProviderServerError(MaybeAboutModel, Transient):
    """The server answered with status 500: an outage, or a text that makes the server fail."""


class NoModelYet(Throttled):
    """The model is being downloaded, or the download failed; other models are not affected."""

    def __init__(self, message: str, delay: float, *, is_unknown: bool = False) -> None:
        """`is_unknown`: the download failed because there is no such model."""
        super().__init__(message, delay)
        self.is_unknown = is_unknown


class BadInput(MaybeAboutModel, Permanent):
    """The provider refused the whole request, perhaps because of something in it."""

    def __init__(self, message: str, code: str = "refused_by_provider") -> None:
        super().__init__(message, code)


class AskAgain(Permanent):
    """The request failed because of an optional field; the next request leaves it out."""

    def __init__(self, message: str, code: str = "ask_again", *, may_be_paid: bool = False) -> None:
        """`may_be_paid`: the server did not refuse the request, so it may charge for it."""
        super().__init__(message, code)
        self.may_be_paid = may_be_paid


class NeedsOperator(Permanent):
    """An operator must act. `model_only`: other models of this provider are not affected."""

    def __init__(self, message: str, *, model_only: bool = False) -> None:
        super().__init__(message, "provider_unusable")
        self.model_only = model_only


class UnknownModel(NeedsOperator):
    """The provider does not have the model, or does not give it to this key."""

    def __init__(self, message: str) -> None:
        super().__init__(message, model_only=True)


class Embeddings(NamedTuple):
    """The response to one request, unchecked."""

    matrix: Matrix
    """(n, d) float32, in the order of the texts unless `positions` says otherwise."""
    tokens: int
    """Tokens that the provider reports as used; 0 if it does not report them."""
    positions: Sequence[int] | None = None
    """The position of each row's text; None if the rows are complete and in order, or not numbered by the provider."""
    pause: float = 0.0
    """Seconds to send this provider nothing, because its headers say that its quota is almost used up."""
    asked: int = 0
    """The number of dimensions that the request asked for; 0 if it asked for none, or the provider does not say."""
    other_lengths: Mapping[int, int] = {}
    """Row → the length of its vector, for rows of another length than most. Such a row is NaN in `matrix`."""


class Caps(NamedTuple):
    """The largest request that a provider accepts."""

    inputs: int
    tokens: int


class Provider(Protocol):
    """A service that embeds texts. Several threads use it at the same time."""

    name: str
    """The name in metrics, logs and circuit breakers."""
    caps: Caps
    free: bool
    """Whether embedding costs nothing, so that neither the cache nor single-flight is worth its time."""
    vendor: str
    """What the vectors depend on besides model, dimensions and text, such as the URL; part of the cache's key."""

    def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Embed the texts with one request. Raises what the module's docstring lists."""
        ...

    def has(self, model: str) -> bool | None:
        """Whether the provider has the model; None if unknown. It may ask the service, but not at every call."""
        ...

    def notices(self) -> Mapping[str, str]:
        """Return messages about single models, by model, such as the progress of a download."""
        ...

    def close(self) -> None:
        """Close connections and end threads."""
        ...
