"""A text that is never shown."""

from __future__ import annotations


class SecretStr:
    """A secret: `repr` and `str` hide it, `get_secret_value` returns it. pydantic's class of this name has the same."""

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        return f"SecretStr({str(self)!r})"

    def __str__(self) -> str:
        return "**********" if self._value else ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


NO_SECRET = SecretStr("")
