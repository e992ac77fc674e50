"""Finds the metrics that a PromQL expression reads."""

from __future__ import annotations

import re

_STRING = re.compile(r'"[^"]*"')
_SELECTOR = re.compile(r"\{[^}]*\}")
_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_DURATION = re.compile(r"\[[^]]*\]")
_NAME = re.compile(r"(?<!\w)[a-zA-Z_:][a-zA-Z0-9_:]*(?!\w)(?!\s*\()")  # a name before a parenthesis is a function
_OPERATORS = frozenset({"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring"})


def selectors(expression: str) -> dict[str, str]:
    """Each metric that an expression reads with its selector; empty if it has none. Of several only the shortest."""
    found: dict[str, str] = {}
    for name in metrics(expression):
        own = [match.group(1) or "" for match in re.finditer(rf"(?<!\w){name}(?!\w)(\{{[^}}]*\}})?", expression)]
        found[name] = min(own, key=len)
    return found


def metrics(expression: str) -> set[str]:
    """The names of all metrics that an expression reads."""
    for noise in (_STRING, _SELECTOR, _LABELS, _DURATION):
        expression = noise.sub(" ", expression)
    return set(_NAME.findall(expression)) - _OPERATORS
