"""Converts what a variable holds to the type of its setting. What is wrong with it is said in words for the operator.

pydantic-settings could do this, but each process would then hold 12 MiB more and start 0.3 s later (measured), for
work that is done once: a dozen types, given as text or as JSON. The texts of its errors are kept.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from common.settings.secret_str import SecretStr

STRICT = "strict"
"""In the annotation of an integer: JSON has numbers of its own, so `true` and "100" are refused."""
_INTEGER = re.compile(r"[+-]?[0-9]+(_[0-9]+)*(\.0+)?")
_YES, _NO = {"1", "true", "t", "yes", "y", "on"}, {"0", "false", "f", "no", "n", "off"}


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


class Range(NamedTuple):
    """In an annotation: the smallest and the largest number that is allowed. Any other function is used likewise."""

    least: float
    most: float = math.inf
    above: bool = False
    """Whether `least` itself is too small."""

    def __call__(self, value: float) -> float:
        """Return the number; raises `ValueError` if it is too small or too large."""
        if value < self.least or (self.above and value == self.least):
            raise ValueError(f"input should be greater than {'' if self.above else 'or equal to '}{_plain(self.least)}")
        if value > self.most:
            raise ValueError(f"input should be less than or equal to {_plain(self.most)}")
        return value


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def convert(kind: Any, value: object, place: tuple[str, ...] = (), *, strict: bool = False) -> Any:
    """Convert a value to a type, which may be annotated. Raises `Unconvertible` with all that is wrong with it."""
    origin = get_origin(kind) or kind
    if origin is Annotated:
        inner, *rules = get_args(kind)
        return _annotated(inner, rules, value, place, strict=strict)
    if origin in {Union, UnionType}:
        (kind,) = (option for option in get_args(kind) if option is not NoneType)
        return None if value is None else convert(kind, value, place, strict=strict)
    if origin is list:
        if not isinstance(value, list | tuple):
            raise Unconvertible([Problem(place, "input should be a valid list", value)])
        return list(_all((get_args(kind)[0], str(number), item) for number, item in enumerate(value))(place).values())
    if origin is dict or dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise Unconvertible([Problem(place, "input should be a valid dictionary", value)])
        if origin is dict:
            return _all((get_args(kind)[1], str(name), item) for name, item in value.items())(place)
        return kind(**_all(_members(kind, value))(place))
    return _applied([lambda value: _simple(kind, value, strict=strict)], value, place)


def _annotated(inner: Any, rules: list[Any], value: object, place: tuple[str, ...], *, strict: bool) -> Any:
    value = _applied([rule.function for rule in rules if isinstance(rule, Prepare)], value, place)
    converted = convert(inner, value, place, strict=strict or STRICT in rules)
    checks = [rule for rule in rules if not isinstance(rule, Prepare) and rule != STRICT]
    try:
        return _applied(checks, converted, place)
    except Unconvertible as error:
        raise Unconvertible([problem._replace(given=value) for problem in error.problems]) from error


def _applied(functions: Iterable[Callable[[Any], Any]], value: Any, place: tuple[str, ...]) -> Any:
    """Apply the functions one after another; a `ValueError` becomes the problem of this place."""
    for function in functions:
        try:
            value = function(value)
        except ValueError as error:
            raise Unconvertible([Problem(place, str(error), value)]) from error
    return value


def _all(items: Iterable[tuple[Any, str, object]]) -> Callable[[tuple[str, ...]], dict[str, Any]]:
    """Convert all (type, name, value), so that all problems are found; `type` is None for a name that is unknown."""

    def at(place: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        problems: list[Problem] = []
        for kind, name, item in items:
            if kind is None:
                problems.append(Problem((*place, name), "this name is unknown", item))
                continue
            try:
                found[name] = convert(kind, item, (*place, name))
            except Unconvertible as error:
                problems += error.problems
        if problems:
            raise Unconvertible(problems)
        return found

    return at


def _members(kind: Any, value: Mapping[Any, object]) -> Iterator[tuple[Any, str, object]]:
    kinds = get_type_hints(kind, include_extras=True)
    return ((kinds.get(str(name)), str(name), item) for name, item in value.items())


def _simple(kind: Any, value: object, *, strict: bool) -> object:
    """Convert to a type without parts; raises `ValueError`."""
    if get_origin(kind) is Literal:
        return _choice(get_args(kind), value)
    if issubclass(kind, Enum):
        return kind(_choice([option.value for option in kind], value))
    if kind in {int, float}:
        return _number(kind, value, strict=strict)
    if kind is bool:
        return _boolean(value)
    if isinstance(value, kind):
        return value
    if not isinstance(value, str):
        raise ValueError("input should be a valid string")  # noqa: TRY004  as for all wrong values
    return kind(value) if kind in {Path, SecretStr} else value


def _choice(options: Sequence[object], value: object) -> str:
    *others, last = (repr(option) for option in options)
    if value not in options:
        raise ValueError(f"input should be {', '.join(others)} or {last}")
    return str(value)


def _number(kind: type[int] | type[float], value: object, *, strict: bool) -> float:
    name = "integer" if kind is int else "number"
    if (isinstance(value, bool) or not isinstance(value, int)) if strict else not isinstance(value, int | float | str):
        raise ValueError(f"input should be a valid {name}")
    if kind is int and isinstance(value, str):
        text = value.strip()
        if not _INTEGER.fullmatch(text):
            raise ValueError("input should be a valid integer, unable to parse string as an integer")
        return int(text.partition(".")[0])  # which refuses thousands of digits
    try:
        number = float(value)  # type: ignore[arg-type]  # mypy does not see what the strict case leaves
    except ValueError as error:
        raise ValueError("input should be a valid number, unable to parse string as a number") from error
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("input should be a finite number")
    if kind is float:
        return number
    if number != int(number):
        raise ValueError("input should be a valid integer, got a number with a fractional part")
    return int(value)  # type: ignore[call-overload, no-any-return]  # not int(number), which is rounded


def _boolean(value: object) -> bool:
    text = str(value).lower()
    if text not in _YES | _NO:
        raise ValueError("input should be a valid boolean, unable to interpret input")
    return text in _YES
