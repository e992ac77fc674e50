"""What msgspec says of a wrong value, in words for an operator who does not know Python."""

from __future__ import annotations

import re
from enum import EnumType
from typing import Any, Literal, get_args, get_origin

import msgspec

_EXPECTED = re.compile(r"Expected `(\w+)`(?:, got `\w+`| (>=|>|<=) (\S+))")
"""A wrong type, or a number that is too small or too large."""
_NAMES = {
    "int": "integer", "float": "number", "bool": "boolean", "str": "string", "array": "list", "object": "dictionary",
}  # fmt: skip
_BOUNDS = {">=": "greater than or equal to", ">": "greater than", "<=": "less than or equal to"}


def in_words(kind: Any, error: msgspec.ValidationError) -> str:
    """What is wrong with a value that should be of this type; a text that is not msgspec's stays as it is."""
    options = get_args(kind) if get_origin(kind) is Literal else list(kind) if isinstance(kind, EnumType) else ()
    if options:
        *others, last = (repr(str(option)) for option in options)
        return f"input should be {', '.join(others)} or {last}"
    expected = _EXPECTED.fullmatch(str(error))
    if not expected:
        return str(error)
    name, bound, number = expected.groups()
    if bound:
        return f"input should be {_BOUNDS[bound]} {number.removesuffix('.0')}"
    return f"input should be a valid {_NAMES.get(name, name)}"
