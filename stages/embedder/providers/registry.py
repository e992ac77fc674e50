"""All providers by name, and which of them each PROCESSING_MODE uses. A new built-in provider is one line here.

The library of a provider is loaded only if the provider is used: the openai SDK alone takes 46 MiB and 0.9 s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from common.settings.settings import Mode, Settings
from stages.embedder.providers import Provider

Factory = Callable[[Settings], Provider]

ENTRY_POINTS = "ai_task_processor.providers"


def _mock(settings: Settings) -> Provider:
    from stages.embedder.providers.mock import Mock  # noqa: PLC0415

    return Mock(settings)


def _openai(settings: Settings) -> Provider:
    from stages.embedder.providers.openai import OpenAI  # noqa: PLC0415

    return OpenAI(settings)


def _ollama(settings: Settings) -> Provider:
    from stages.embedder.providers.ollama import Ollama  # noqa: PLC0415

    return Ollama(settings)


BUILT_IN: Mapping[str, Factory] = {"mock": _mock, "openai": _openai, "ollama": _ollama}

PROVIDERS_OF_MODE: Mapping[Mode, tuple[str, ...]] = {
    Mode.MOCK: ("mock",),
    Mode.OPENAI: ("openai",),
    Mode.OLLAMA: ("ollama",),
    Mode.HYBRID: ("ollama", "openai"),
}
"""The providers of each PROCESSING_MODE, the first choice first."""


def registered() -> Mapping[str, Factory]:
    """Return all providers by name: the built-in ones, and those of other installed packages."""
    others = {point.name: point.load() for point in entry_points(group=ENTRY_POINTS)}
    return {**BUILT_IN, **others}


def of_settings(settings: Settings) -> list[Provider]:
    """Make the providers of PROCESSING_MODE; those of other packages come first, except in the mode `mock`."""
    factories = registered()
    others = [name for name in factories if name not in BUILT_IN and settings.mode is not Mode.MOCK]
    return [factories[name](settings) for name in (*others, *PROVIDERS_OF_MODE[settings.mode])]
