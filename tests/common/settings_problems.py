"""Which problems the settings have in an environment."""

from __future__ import annotations

import pytest

from common.failures.errors import SettingsError
from common.settings.settings import read

REQUIRED = {
    "API_BASE_URL": "http://api.example",
    "OAUTH2_CLIENT_ID": "client",
    "OAUTH2_CLIENT_SECRET": "canary-secret",
    "ORY_PROJECT_SLUG": "slug",
    "OPENAI_API_KEY": "canary-key",
}


def problems(**environment: str) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment.items():
            patch.setenv(variable, value)
        with pytest.raises(SettingsError) as raised:
            read()
    return raised.value.problems


def only(**environment: str) -> str:
    found = problems(**environment)
    assert len(found) == 1, found
    return found[0]
