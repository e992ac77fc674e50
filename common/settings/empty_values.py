"""Settings for which an empty value means something. An empty value of any other setting counts as not set."""

from __future__ import annotations

from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, PydanticBaseSettingsSource

MAY_BE_EMPTY = frozenset({"default_embedding_model"})
"""Fields for which `X=` sets the empty value."""


class EmptyValueSource(PydanticBaseSettingsSource):
    """The empty values of one source; `beside` is the source of the environment or of `.env`, which leaves them out."""

    def __init__(self, kind: type[BaseSettings], beside: PydanticBaseSettingsSource) -> None:
        super().__init__(kind)
        source = EnvSettingsSource(kind, env_ignore_empty=False)
        if isinstance(beside, DotEnvSettingsSource):
            encoding = beside.env_file_encoding
            source = DotEnvSettingsSource(kind, beside.env_file, encoding, env_ignore_empty=False)
        self._given = source.env_vars

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """The empty string if the variable is set to it and may be, otherwise None."""
        is_empty = field_name in MAY_BE_EMPTY and self._given.get(field_name) == ""
        return "" if is_empty else None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """The fields that are set to nothing."""
        return {name: "" for name in MAY_BE_EMPTY if self._given.get(name) == ""}
