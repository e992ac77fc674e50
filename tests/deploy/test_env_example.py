from __future__ import annotations

import itertools
import os

import pytest
from dotenv import dotenv_values

from common.settings.settings import NAMES, PLACEHOLDER_API_KEY, Mode, Settings, defaults, read
from tests.deploy.tools import ROOT

EXAMPLE = ROOT / ".env.example"
TO_FILL_IN = {"API_BASE_URL", "OAUTH2_CLIENT_ID", "OAUTH2_CLIENT_SECRET", "ORY_PROJECT_SLUG", "OPENAI_API_KEY"}
"""Settings for which the example shows another value than the default."""


@pytest.fixture(autouse=True)
def no_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.removesuffix("_FILE").lower() in NAMES:
            monkeypatch.delenv(name)


def test_the_example_contains_exactly_the_settings() -> None:
    assert {name.lower() for name in dotenv_values(EXAMPLE)} == set(NAMES)


def test_the_service_starts_with_the_example_in_mock_mode() -> None:
    settings: Settings = read(env_file=EXAMPLE)
    assert settings.mode is Mode.MOCK
    assert settings.openai_api_key.get_secret_value() == PLACEHOLDER_API_KEY


def test_the_example_shows_the_default_of_every_other_setting() -> None:
    shown: Settings = read(env_file=EXAMPLE)
    for name, default in defaults().items():
        if name.upper() not in TO_FILL_IN:
            assert getattr(shown, name) == default, name.upper()


def test_every_setting_has_a_comment_on_the_line_before_it() -> None:
    lines = EXAMPLE.read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if line and not line.startswith("#"):
            assert before.startswith("# "), line


def test_docker_reads_the_example_as_the_service_does() -> None:
    # `docker run --env-file` supports neither quotes nor comments after a value
    for name, value in dotenv_values(EXAMPLE, interpolate=False).items():
        assert f"{name}={value}" in EXAMPLE.read_text().splitlines(), name
