"""Values of settings: which texts and JSON values a type accepts, and which problems are found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from common.settings.conversion import STRICT, Range, Unconvertible, convert
from common.settings.model_limits import ModelLimits
from common.settings.secret_str import NO_SECRET, SecretStr


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, " 5 ", 5),
        (int, "+5", 5),
        (int, "1_000", 1000),
        (int, "5.0", 5),
        (int, 5.0, 5),
        (int, 2**60 + 1, 2**60 + 1),
        (float, "1e3", 1000.0),
        (float, 2, 2.0),
        (bool, "ON", True),
        (bool, "0", False),
        (bool, True, True),
        (str, "", ""),
        (Path, "a/b", Path("a/b")),
        (Path | None, None, None),
        (Path | None, "a", Path("a")),
        (SecretStr, "x", SecretStr("x")),
        (Literal["wait", "fail"], "fail", "fail"),
        (list[str], ["a", "b"], ["a", "b"]),
        (dict[str, int], {"a": "1"}, {"a": 1}),
        (Annotated[int, Range(1, 5)], "5", 5),
        (dict[str, ModelLimits], {"m": {"per_day": 1}}, {"m": ModelLimits(per_day=1)}),
    ],
)
def test_a_value_is_converted(kind: Any, value: object, expected: object) -> None:
    converted = convert(kind, value)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, "1__0"), (int, "\u0661"), (int, "1e3"), (int, "1.5"), (int, 1.5), (int, None), (int, "9" * 5000),
        (float, "x"), (float, "nan"), (float, 10**400), (float, None), (float, []), (bool, " on "), (bool, "2"),
        (str, 1), (Path, 1), (SecretStr, 1), (list[str], "a"), (list[str], {}), (dict[str, int], []),
        (Literal["a", "b"], "A"), (Annotated[int, STRICT], "1"), (Annotated[int, STRICT], True),
        (Annotated[float, Range(0, above=True)], "0"), (ModelLimits, 1), (ModelLimits, {"x": 1}),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_a_problem(kind: Any, value: object) -> None:
    with pytest.raises(Unconvertible) as raised:
        convert(kind, value)
    assert [problem.message for problem in raised.value.problems]


def test_all_problems_of_a_value_are_found_with_their_places() -> None:
    with pytest.raises(Unconvertible) as raised:
        convert(dict[str, ModelLimits], {"a": {"per_day": -1, "per_dai": 1}, "b": 5, "c": {}})
    assert [problem.place for problem in raised.value.problems] == [("a", "per_day"), ("a", "per_dai"), ("b",)]


def test_a_secret_is_never_shown() -> None:
    assert "canary" not in f"{SecretStr('canary')} {SecretStr('canary')!r}"
    assert str(NO_SECRET) == ""
    assert len({SecretStr("a"), SecretStr("a"), NO_SECRET}) == 2
