"""Variables that look like settings and are none: they are ignored, which nothing else would tell.

A name is told of if it is close to the name of a setting (`RATE_LIMIT_PER_MINTE`), or if it begins like the settings
that only this service has (`RATE_LIMIT_…`). Other programs share some of the beginnings: `OLLAMA_HOST` is not told of.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CLOSE = 0.86
"""How alike two names are (`difflib`): at most two letters differ in a name of fourteen."""
OWN_PREFIXES = ("RATE_LIMIT_", "OAUTH2_", "ORY_PROJECT", "EMBEDDER_", "EMBEDDING_", "CIRCUIT_BREAKER_", "POLLING_")
"""No other program's variables begin like this."""
FOREIGN = frozenset({
    "OPENAI_API_BASE", "OPENAI_API_TYPE", "OPENAI_API_VERSION", "OPENAI_LOG", "OPENAI_ORGANIZATION", "OPENAI_ORG_ID",
    "OPENAI_PROJECT_ID", "OPENAI_WEBHOOK_SECRET", "OLLAMA_DEBUG", "OLLAMA_FLASH_ATTENTION", "OLLAMA_HOST",
    "OLLAMA_LOAD_TIMEOUT", "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_MAX_QUEUE", "OLLAMA_MODELS", "OLLAMA_NUM_PARALLEL",
    "OLLAMA_ORIGINS", "API_KEY", "LOG_LEVELS",
})  # fmt: skip
"""Variables of the openai SDK, of Ollama's server, and of other programs, that are close to a setting."""


def unknown_names(given: Iterable[str], settings: Iterable[str]) -> list[str]:
    """One sentence for each given name that is probably meant to be a setting."""
    known = {name.upper() for name in settings}
    allowed = known | {f"{name}_FILE" for name in known}
    sentences = []
    for name in sorted({name.upper() for name in given} - allowed - FOREIGN):
        nearest = difflib.get_close_matches(name, allowed, 1, CLOSE)
        if nearest:
            sentences.append(f"{name} is not a setting, and is ignored: did you mean {nearest[0]}?")
        elif name.startswith(OWN_PREFIXES):
            guess = difflib.get_close_matches(name, allowed, 1, 0.0)
            sentences.append(f"{name} is not a setting, and is ignored: the nearest one is {guess[0]}")
    return sentences
