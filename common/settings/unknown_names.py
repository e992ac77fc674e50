"""Variables that look like settings and are none: they are ignored, which nothing else would tell.

A name is told of if it is close to the name of a setting (`RATE_LIMIT_PER_MINTE`), if it is such a name without one of
its words (`OPENAI_KEY`), or if it begins like the settings that only this service has (`RATE_LIMIT_…`). Other programs
share some of the beginnings: `OLLAMA_HOST` and `OAUTH2_PROXY_COOKIE_SECRET` are not told of.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

CLOSE = 0.85
"""How alike two names are (`difflib`): at most two letters differ in a name of fourteen."""
OWN_PREFIXES = (
    "RATE_LIMIT_", "OAUTH2_", "EMBEDDER_", "EMBED_BATCH_", "EMBEDDING_", "CIRCUIT_BREAKER_", "POLLING_", "LEASE_",
    "RETRY_BACKOFF",
)  # fmt: skip
"""Other programs' variables rarely begin like this."""
SHARED_PREFIXES = ("OPENAI_", "OLLAMA_", "ORY_", "API_BASE_")
"""Other programs' variables begin like this too: a name is told of only if all its words are those of one setting."""
FOREIGN = frozenset({
    "OPENAI_ADMIN_KEY", "OPENAI_API_BASE", "OPENAI_API_TYPE", "OPENAI_API_VERSION", "OPENAI_LOG",
    "OPENAI_ORGANIZATION", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_WEBHOOK_SECRET", "OLLAMA_AUTH", "OLLAMA_DEBUG",
    "OLLAMA_FLASH_ATTENTION", "OLLAMA_HOST", "OLLAMA_LOAD_TIMEOUT", "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_MAX_QUEUE",
    "OLLAMA_MODELS", "OLLAMA_NUM_PARALLEL", "OLLAMA_ORIGINS", "API_BASE", "API_KEY", "LOG_LEVELS",
})  # fmt: skip
"""Variables of the openai SDK, of Ollama's server, and of other programs, that are close to a setting."""
_OF_OTHERS = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)|OAUTH2_PROXY_\w+"
    r"|ORY_PROJECT_(ID|URL|API_KEY)"
)
"""What Kubernetes sets for each of its services, and variables of oauth2-proxy and of Ory's own command."""


def unknown_names(given: Iterable[str], settings: Iterable[str]) -> list[str]:
    """One sentence for each given name that is probably meant to be a setting."""
    known = {name.upper() for name in settings}
    allowed = known | {f"{name}_FILE" for name in known}
    sentences = []
    for name in sorted({name.upper() for name in given} - allowed - FOREIGN):
        nearest = difflib.get_close_matches(name, allowed, 1, CLOSE) or _with_one_more_word(name, known)
        if _OF_OTHERS.fullmatch(name) and nearest != ["METRICS_PORT"]:
            continue
        if nearest:
            sentences.append(f"{name} is not a setting, and is ignored: did you mean {nearest[0]}?")
        elif name.startswith(OWN_PREFIXES):
            guess = difflib.get_close_matches(name, allowed, 1, 0.0)
            sentences.append(f"{name} is not a setting, and is ignored: the nearest one is {guess[0]}")
    return sentences


def _with_one_more_word(name: str, known: Iterable[str]) -> list[str]:
    """The setting that has all words of the name, and one more: OPENAI_KEY → OPENAI_API_KEY."""
    if not name.startswith((*SHARED_PREFIXES, *OWN_PREFIXES)):
        return []
    words = name.split("_")
    longer = [other for other in known if other.count("_") == name.count("_") + 1]
    found = [other for other in longer if _is_subsequence(words, other.split("_"))]
    return sorted(found)[:1]


def _is_subsequence(words: list[str], longer: list[str]) -> bool:
    """Whether all words occur in the longer list, in their order."""
    left = iter(longer)
    return all(word in left for word in words)
