"""Redact a provider's message before it is shown: one short line, without the key and without the texts.

Providers repeat the input they refuse, in whole or in part, quoted, escaped or cut. Therefore everything in the message
that also occurs in the texts is removed: parts in quotes, runs of `RUN_CHARS` characters, and short texts as words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

MAX_CHARS = 300
"""Longest message, in characters."""
RUN_CHARS = 12
"""This number of characters in a row that also occur in a text are a quotation, not chance."""
MIN_SECRET_CHARS = 8
"""Shorter keys are not removed: local servers accept any key, and people set `none` or `key`."""
REDACTED = "…"

_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"|`([^`]+)`")
_KEY = re.compile(r"\b(?:sk|pk|key)-[\w*.-]{3,}|\bBearer\s+\S+", re.IGNORECASE)
"""Keys, also those that a provider shows only in part (`sk-abc***xyz`)."""


def redact(words: str, texts: Sequence[str] = (), secret: str = "") -> str:
    """Return a provider's message so that it can be shown, logged and stored, in at most `MAX_CHARS` characters."""
    words = " ".join("".join(char if char.isprintable() else " " for char in words[:4000]).split())
    if len(secret) >= MIN_SECRET_CHARS:
        words = words.replace(secret, REDACTED)
    words = _KEY.sub(REDACTED, words)
    if texts:
        words = _without_texts(words[: 2 * MAX_CHARS], texts)
    return words if len(words) <= MAX_CHARS else words[: MAX_CHARS - 1] + REDACTED


def _without_texts(words: str, texts: Sequence[str]) -> str:
    plain = [" ".join(text.split()) for text in texts]
    for text in plain:
        if 1 < len(text) < RUN_CHARS and text in words:
            words = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", REDACTED, words)
    haystack = "\n".join(plain)
    escaped = json.dumps(haystack)
    if len(escaped) != len(haystack) + 2 + haystack.count("\n"):  # some characters look different when escaped
        haystack = "\n".join((haystack, escaped, json.dumps(haystack, ensure_ascii=False)))

    def unquoted(match: re.Match[str]) -> str:
        quoted = next(group for group in match.groups() if group is not None)
        inner = quoted.strip(" .…")
        return match[0].replace(quoted, REDACTED) if inner and inner in haystack else match[0]

    return _without_runs(_QUOTED.sub(unquoted, words), haystack)


def _without_runs(words: str, haystack: str) -> str:
    kept: list[str] = []
    at = 0
    while at < len(words):
        end = at + RUN_CHARS
        if end <= len(words) and words[at:end] in haystack:
            while end < len(words) and words[at : end + 1] in haystack:
                end += 1
            kept.append(REDACTED)
            at = end
        else:
            kept.append(words[at])
            at += 1
    return "".join(kept)
