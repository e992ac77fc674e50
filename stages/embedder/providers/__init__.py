"""Who can embed texts: one file each, and one line in `BUILT_IN`.

Another Python package adds a provider with an entry point in the group `ai_task_processor.providers`: its name is what
FALLBACK_MODELS and the logs call it, its value a function of the settings that returns a `Provider`.

A provider makes one request and does nothing else: it neither retries nor splits nor checks vectors. What went wrong it
says by raising one of these, and the rest of this package knows what to do about each:

    Transient          an outage, a timeout, half an answer: retry with back-off
    NotSent            the same, but the request certainly never left: its charge can be refunded
    ProviderServerError            the same, but perhaps one of the texts is to blame: halving finds out
    Throttled(delay)   leave this provider alone for so many seconds
    NoModelYet(delay)  leave this model alone for so many seconds: it is being fetched, or could not be
    AskAgain           it has learnt how to ask this server: make the same request again
    BadInput           the whole request is refused for something in it: halving finds the guilty text
    NeedsOperator           neither waiting nor halving mends it, a person must: a bad key, no quota, no such model
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from common.failures.errors import Permanent, Throttled, Transient
from common.settings.settings import Mode, Settings

Matrix = NDArray[np.float32]
"""(n, d) float32: one vector for each text."""


class NotSent(Transient):
    """No connection: the texts certainly never reached the provider."""


class ProviderServerError(Transient):
    """The service answered that it failed (500): it may be an outage, or a text that it cannot stomach."""


class NoModelYet(Throttled):
    """The model is being fetched, or could not be; other models go on."""


class BadInput(Permanent):
    """The provider refused the request as a whole for something in it."""

    def __init__(self, message: str, code: str = "refused_by_provider") -> None:
        super().__init__(message, code)


class AskAgain(Permanent):
    """The request was refused for an optional field, which the next one leaves out."""


class NeedsOperator(Permanent):
    """A person must mend it. `model_only`: other models of this provider go on."""

    def __init__(self, message: str, *, model_only: bool = False) -> None:
        super().__init__(message, "provider_unusable")
        self.model_only = model_only


class Embeddings(NamedTuple):
    """The answer to one request, unchecked."""

    matrix: Matrix
    """(n, d) float32, in the order of the texts unless `positions` says otherwise."""
    tokens: int
    """What the provider says it used; 0 if it does not say."""
    positions: Sequence[int] | None = None
    """For each row the position of its text, where the provider numbers them and they are not complete and in order."""
    pause: float = 0.0
    """Seconds for which the provider should be left alone, by what its headers say is left of the quota."""


class Caps(NamedTuple):
    """The largest request a provider takes."""

    inputs: int
    tokens: int


class Provider(Protocol):
    """One service that embeds; used by several threads at once."""

    name: str
    """As in metrics, logs and the names of breakers."""
    caps: Caps
    free: bool
    """Whether embedding costs nothing, so that neither a cache nor a look at who else embeds the text pays."""
    vendor: str
    """What its vectors depend on besides model, dimensions and text: part of the cache's key."""

    def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Embed the texts with one request. Raises what the module's docstring lists."""
        ...

    def has(self, model: str) -> bool | None:
        """Whether it has the model; None if it cannot tell. May ask the service, but at most once in a while."""
        ...

    def notices(self) -> Mapping[str, str]:
        """What is going on with single models, in words, by model: such as a download and how far it is."""
        ...

    def close(self) -> None:
        """Let go of connections and threads."""
        ...


Factory = Callable[[Settings], Provider]

ENTRY_POINTS = "ai_task_processor.providers"


def _mock(settings: Settings) -> Provider:
    from stages.embedder.providers.mock import Mock  # noqa: PLC0415  each provider's library is loaded only if used

    return Mock(settings)


def _openai(settings: Settings) -> Provider:
    from stages.embedder.providers.openai import OpenAI  # noqa: PLC0415

    return OpenAI(settings)


def _ollama(settings: Settings) -> Provider:
    from stages.embedder.providers.ollama import Ollama  # noqa: PLC0415

    return Ollama(settings)


BUILT_IN: Mapping[str, Factory] = {"mock": _mock, "openai": _openai, "ollama": _ollama}

OF_MODE: Mapping[Mode, tuple[str, ...]] = {
    Mode.MOCK: ("mock",),
    Mode.OPENAI: ("openai",),
    Mode.OLLAMA: ("ollama",),
    Mode.HYBRID: ("ollama", "openai"),
}
"""Which providers a mode uses."""


def registered() -> Mapping[str, Factory]:
    """All providers by name: the built-in ones, and those of other installed packages."""
    others = {point.name: point.load() for point in entry_points(group=ENTRY_POINTS)}
    return {**BUILT_IN, **others}


def of_settings(settings: Settings) -> list[Provider]:
    """Make the providers of the mode in force; those of other packages are asked first, except in the mode `mock`."""
    factories = registered()
    others = [name for name in factories if name not in BUILT_IN and settings.mode is not Mode.MOCK]
    return [factories[name](settings) for name in (*others, *OF_MODE[settings.mode])]
