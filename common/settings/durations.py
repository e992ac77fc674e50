"""Durations as Go writes them, which settings pass on to Ollama."""

from __future__ import annotations

import re

_GO_DURATION = re.compile(r"|-?[0-9]{1,9}(\.[0-9]{1,9})?|[-+]?([0-9]{1,9}(\.[0-9]{0,9})?(ns|us|µs|μs|ms|s|m|h))+")
"""What Ollama reads as `keep_alive`: a number of seconds, or a duration (https://pkg.go.dev/time#ParseDuration)."""


def go_duration(value: str) -> str:
    """Check a duration, which may be empty. Raises `ValueError` with words for the operator."""
    text = value.strip()
    if not _GO_DURATION.fullmatch(text):
        raise ValueError("must be a duration such as 10m or 1h30m, or a number of seconds; -1 means for ever")
    return text
