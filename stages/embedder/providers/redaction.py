"""What a provider said, fit to be shown: one line, short, without the key and without the texts it was given.

Providers echo what they complain about, in whole or in part, quoted, escaped or cut. So whatever also occurs in the
texts is taken out of the words: anything in quotes, any run of `RUN` characters, and a short text that stands alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

LONGEST = 300
"""Characters of an error's words."""
RUN = 12
"""Characters that occur in a text as well: an echo, not chance."""
SHORTEST_SECRET = 8
"""Characters; local servers take any key, and people give them `none` or `key`."""
GONE = "…"

_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"|`([^`]+)`")
_KEY = re.compile(r"\b(?:sk|pk|key)-[\w*.-]{3,}|\bBearer\s+\S+", re.IGNORECASE)
"""Keys, also those that a provider shows in part (`sk-abc***xyz`)."""


def redact(words: str, texts: Sequence[str] = (), secret: str = "") -> str:
    """Make a provider's words fit to be shown, logged and stored: at most `LONGEST` characters."""
    words = " ".join("".join(char if char.isprintable() else " " for char in words[:4000]).split())
    if len(secret) >= SHORTEST_SECRET:
        words = words.replace(secret, GONE)
    words = _KEY.sub(GONE, words)
    if texts:
        words = _without_echoes(words[: 2 * LONGEST], texts)
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + GONE


def _without_echoes(words: str, texts: Sequence[str]) -> str:
    plain = [" ".join(text.split()) for text in texts]
    for text in plain:
        if 1 < len(text) < RUN and text in words:
            words = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", GONE, words)
    haystack = "\n".join(plain)
    escaped = json.dumps(haystack)
    if len(escaped) != len(haystack) + 2 + haystack.count("\n"):  # something in it looks different when escaped
        haystack = "\n".join((haystack, escaped, json.dumps(haystack, ensure_ascii=False)))

    def unquoted(match: re.Match[str]) -> str:
        quoted = next(group for group in match.groups() if group is not None)
        inner = quoted.strip(" .…")
        return match[0].replace(quoted, GONE) if inner and inner in haystack else match[0]

    return _without_runs(_QUOTED.sub(unquoted, words), haystack)


def _without_runs(words: str, haystack: str) -> str:
    kept: list[str] = []
    at = 0
    while at < len(words):
        end = at + RUN
        if end <= len(words) and words[at:end] in haystack:
            while end < len(words) and words[at : end + 1] in haystack:
                end += 1
            kept.append(GONE)
            at = end
        else:
            kept.append(words[at])
            at += 1
    return "".join(kept)
