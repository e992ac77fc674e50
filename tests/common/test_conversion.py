"""Values of settings: which texts and JSON values a type accepts, and which problems are found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta

from common.settings.conversion import STRICT, Unconvertible, convert
from common.settings.model_limits import ModelLimits, Strategy
from common.settings.secret_str import NO_SECRET, SecretStr


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, " 5 ", 5),
        (int, "+5", 5),
        (int, "1_000", 1000),
        (int, "5.0", 5),
        (int, " +1_000.0 ", 1000),
        (int, "007", 7),
        (int, 5.0, 5),
        (int, 2**60 + 1, 2**60 + 1),
        (float, "1e3", 1000.0),
        (float, 2, 2.0),
        (float, " .5", 0.5),
        (float, "05", 5.0),
        (bool, "ON", True),
        (bool, "0", False),
        (bool | None, "N", False),
        (bool, True, True),
        (str, "", ""),
        (Path, "a/b", Path("a/b")),
        (Path | None, None, None),
        (Path | None, "a", Path("a")),
        (SecretStr, "x", SecretStr("x")),
        (Literal["wait", "fail"], "fail", "fail"),
        (list[str], ["a", "b"], ["a", "b"]),
        (dict[str, int], {"a": "1"}, {"a": 1}),
        (Annotated[int, Meta(ge=1, le=5)], "5", 5),
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
        (int, "1__0"), (int, "\u0661"), (int, "\uff11"), (float, "\uff11"), (int, "1e3"), (int, "1E3"), (int, "inf"),
        (int, True), (float, True), (float, float("nan")), (bool, "null"), (bool | None, "null"),
        (Annotated[list[int], STRICT], [1.0]), (Annotated[dict[str, int], STRICT], {"a": "1"}),
        (int, "1.5"), (int, 1.5), (int, None), (int, "9" * 5000),
        (float, "x"), (float, "nan"), (float, 10**400), (float, None), (float, []), (bool, " on "), (bool, "2"),
        (str, 1), (Path, 1), (SecretStr, 1), (list[str], "a"), (list[str], {}), (dict[str, int], []),
        (Literal["a", "b"], "A"), (Annotated[int, STRICT], "1"), (Annotated[int, STRICT], True),
        (Annotated[float, Meta(gt=0)], "0"), (ModelLimits, 1), (ModelLimits, {"x": 1}),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_a_problem(kind: Any, value: object) -> None:
    with pytest.raises(Unconvertible) as raised:
        convert(kind, value)
    assert [problem.message for problem in raised.value.problems]


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (int, "five", "input should be a valid integer"),
        (int, "1e3", "input should be a valid integer"),
        (int, "9" * 5000, "input should be a valid integer"),
        (float, "five", "input should be a valid number"),
        (float, "-inf", "input should be a finite number"),
        (bool, "maybe", "input should be a valid boolean"),
        (str, 1, "input should be a valid string"),
        (Path, 1, "input should be a valid string"),
        (list[str], "a", "input should be a valid list"),
        (dict[str, int], [], "input should be a valid dictionary"),
        (Annotated[int, Meta(ge=1)], "-" + "9" * 30, "input should be greater than or equal to 1"),
        (Annotated[int, Meta(le=5)], "9" * 30, "input should be less than or equal to 5"),
        (Annotated[float, Meta(gt=0)], "0", "input should be greater than 0"),
        (Annotated[float, Meta(le=0.5)], "1", "input should be less than or equal to 0.5"),
        (Literal["a", "b", "c"], "A", "input should be 'a', 'b' or 'c'"),
        (Strategy, "sliding", "input should be 'rolling' or 'fixed'"),
        (Strategy, None, "input should be 'rolling' or 'fixed'"),
    ],
)
def test_a_problem_is_in_words_and_shows_the_value_as_it_was_given(kind: Any, value: object, message: str) -> None:
    with pytest.raises(Unconvertible) as raised:
        convert(kind, value)
    assert raised.value.problems == [((), message, value)]


def test_all_problems_of_a_value_are_found_with_their_places() -> None:
    with pytest.raises(Unconvertible) as raised:
        convert(dict[str, ModelLimits], {"a": {"per_day": -1, "per_dai": 1}, "b": 5, "c": {}})
    assert [problem.place for problem in raised.value.problems] == [("a", "per_day"), ("a", "per_dai"), ("b",)]


def test_a_secret_is_never_shown() -> None:
    assert "canary" not in f"{SecretStr('canary')} {SecretStr('canary')!r}"
    assert str(NO_SECRET) == ""
    assert len({SecretStr("a"), SecretStr("a"), NO_SECRET}) == 2
