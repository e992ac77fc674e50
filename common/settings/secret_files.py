"""Settings that are read from files: `X_FILE=path` may replace `X=value`, as for the secrets of containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

LARGEST_FILE_BYTES = 65_536
"""A file contains one value."""


class UnreadableValue(NamedTuple):
    """Takes the place of a value that cannot be read from its file. No field accepts it, so it becomes a problem."""

    variable: str
    """The variable to name in the report."""
    why: str
    """What is wrong, and the remedy."""


class FileSource(PydanticBaseSettingsSource):
    """The variables `X_FILE` of one source; `beside` is the source of the environment or of `.env`."""

    def __init__(self, kind: type[BaseSettings], beside: PydanticBaseSettingsSource) -> None:
        super().__init__(kind)
        self._given = beside.env_vars if isinstance(beside, EnvSettingsSource) else {}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """The value in the file that `<FIELD_NAME>_FILE` names; None if that is not set."""
        path = self._given.get(f"{field_name}_file")
        variable = field_name.upper()
        if path and self._given.get(field_name):
            return (
                UnreadableValue(variable, f"{variable}_FILE is set too; set only one of them"),
                field_name,
                False,
            )
        return _content(variable, path) if path else None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """The values of all fields that are read from files."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


def _content(variable: str, path: str) -> str | UnreadableValue:
    """The content of the file, without the newline at its end."""

    def unreadable(why: str) -> UnreadableValue:
        return UnreadableValue(f"{variable}_FILE", f"{path} {why}; put the value there, or set {variable} instead")

    try:
        with Path(path).open("rb") as file:
            raw = file.read(LARGEST_FILE_BYTES + 1)
        value = raw.decode().rstrip("\r\n")
    except OSError as error:
        return unreadable(f"cannot be read: {error.strerror}")
    except ValueError:  # not UTF-8, or an invalid path
        return unreadable("does not contain UTF-8 text")
    if not value:
        return unreadable("is empty")
    return value if len(raw) <= LARGEST_FILE_BYTES else unreadable(f"is larger than {LARGEST_FILE_BYTES} bytes")
