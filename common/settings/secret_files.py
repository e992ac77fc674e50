"""Settings that are given by file: `X_FILE=path` wherever `X=value` may stand, as container secrets come."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

LARGEST_FILE = 65_536
"""Bytes; a file holds one value."""


class UnreadableValue(NamedTuple):
    """Stands in for a value that a file should have given: no field accepts it, so it is reported with the rest."""

    variable: str
    why: str


class FileSource(PydanticBaseSettingsSource):
    """The variables that are given by file in one place: `beside` is the source for the environment, or for `.env`."""

    def __init__(self, kind: type[BaseSettings], beside: PydanticBaseSettingsSource) -> None:
        super().__init__(kind)
        self._given = beside.env_vars if isinstance(beside, EnvSettingsSource) else {}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """What `<field_name>_FILE` leads to; None if it is not set."""
        path = self._given.get(f"{field_name}_file")
        variable = field_name.upper()
        if path and self._given.get(field_name):
            return UnreadableValue(variable, f"is set, and {variable}_FILE too; set one of them"), field_name, False
        return _content(variable, path) if path else None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Every field that is given by file."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


def _content(variable: str, path: str) -> str | UnreadableValue:
    """What the file holds, without the newline at its end."""

    def unusable(why: str) -> UnreadableValue:
        return UnreadableValue(f"{variable}_FILE", f"{path} {why}; put the value there, or set {variable} itself")

    try:
        with Path(path).open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
        value = raw.decode().rstrip("\r\n")
    except OSError as error:
        return unusable(f"cannot be read: {error.strerror}")
    except ValueError:  # not UTF-8, or a path that cannot be one
        return unusable("does not hold UTF-8 text")
    if not value:
        return unusable("is empty")
    return value if len(raw) <= LARGEST_FILE else unusable(f"is larger than {LARGEST_FILE} bytes")
