"""Converts what a variable holds to the type of its setting with msgspec, and finds all that is wrong with it.

Each process but supervisord loads msgspec anyway; pydantic-settings would add 12 MiB and 0.3 s to each (measured).
What msgspec does not do is done here: it reads numbers and booleans only as JSON writes them, it tells of one problem
only, and it does not name the members of a dictionary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

from common.settings.msgspec_errors import in_words

STRICT = "strict"
"""In an annotation: JSON has numbers of its own, so `"100"` and `100.0` in it are no integers."""
_BOOLEANS = dict.fromkeys(("t", "yes", "y", "on"), True) | dict.fromkeys(("f", "no", "n", "off"), False)
"""The words that msgspec does not know."""


class Problem(NamedTuple):
    """One thing that is wrong with a value."""

    place: tuple[str, ...]
    """Where in the value: the names of the members of JSON objects; empty for the value itself."""
    message: str
    """What is wrong."""
    given: object
    """The wrong value, or the part of it that is wrong."""


class Unconvertible(Exception):
    """A value cannot be a setting's."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__()
        self.problems = problems


class Prepare(NamedTuple):
    """In an annotation: a function that is applied before the conversion. It may raise `ValueError`."""

    function: Callable[[object], object]


def convert(kind: Any, value: object) -> Any:
    """Convert a value to a type. Functions in its annotation check the result, and may raise `ValueError`.

    Raises `Unconvertible` with all that is wrong with the value.
    """
    if get_origin(kind) in {Union, UnionType}:  # or msgspec would take the text "null" as None
        if value is None:
            return None
        (kind,) = (option for option in get_args(kind) if option is not NoneType)
    rules = getattr(kind, "__metadata__", ())
    strict = STRICT in rules
    try:
        for rule in rules:
            value = rule.function(value) if isinstance(rule, Prepare) else value
        written = value if strict or not isinstance(value, str) else _as_json(_bare(kind), value)
        converted = _by_msgspec(kind, written, strict=strict)
        for check in filter(callable, rules):
            converted = check(converted)
    except msgspec.ValidationError as error:
        problems = _problems(kind, written, (), strict=strict)
        raise Unconvertible([wrong if wrong.place else wrong._replace(given=value) for wrong in problems]) from error
    except ValueError as error:
        raise Unconvertible([Problem((), str(error), value)]) from error
    return converted


def _bare(kind: Any) -> Any:
    """The type without its annotation."""
    return kind.__origin__ if hasattr(kind, "__metadata__") else kind


def _as_json(kind: Any, text: str) -> object:
    """A number or a boolean that is not written as in JSON, such as "+5", "1_000", ".5" or "yes"; else the text."""
    if kind is bool:
        return _BOOLEANS.get(text.lower(), text)
    if kind not in {int, float}:
        return text
    if not text.isascii() or (kind is int and "e" in text.lower()):  # a digit of another script, or "1e3"
        raise ValueError(f"input should be a valid {'integer' if kind is int else 'number'}")
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    return text


def _by_msgspec(kind: Any, value: object, *, strict: bool) -> Any:
    if _bare(kind) is float and isinstance(value, float) and not math.isfinite(value):
        raise msgspec.ValidationError("input should be a finite number")
    return msgspec.convert(value, kind, strict=strict, dec_hook=_from_text)


def _from_text(kind: type, value: object) -> object:
    """Make what msgspec does not know: a path, a secret."""
    if not isinstance(value, str | kind):
        raise ValueError("input should be a valid string")  # noqa: TRY004  which msgspec expects
    return kind(value) if isinstance(value, str) else value


def _problems(kind: Any, value: object, place: tuple[str, ...], *, strict: bool) -> list[Problem]:
    """All that is wrong with a value and its parts; `kind` is None for a member whose name is unknown."""
    if kind is None:
        return [Problem(place, "this name is unknown", value)]
    try:
        _by_msgspec(kind, value, strict=strict)
    except msgspec.ValidationError as error:
        parts = _parts(_bare(kind), value)
        inside = [_problems(part, item, (*place, name), strict=strict) for name, part, item in parts]
        return list(chain(*inside)) or [Problem(place, in_words(_bare(kind), error), value)]
    return []


def _parts(kind: Any, value: object) -> list[tuple[str, Any, object]]:
    """The name, the type and the value of each part of a value; none if it has no parts."""
    if isinstance(value, list) and get_origin(kind) is list:
        return [(str(number), get_args(kind)[0], item) for number, item in enumerate(value)]
    if isinstance(value, dict) and get_origin(kind) is dict:
        return [(str(name), get_args(kind)[1], item) for name, item in value.items()]
    if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        types = get_type_hints(kind, include_extras=True)
        return [(str(name), types.get(name), item) for name, item in value.items()]
    return []
