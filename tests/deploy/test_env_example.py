from __future__ import annotations

import itertools
import os

import pytest
from dotenv import dotenv_values

from common.settings.settings import PLACEHOLDER_API_KEY, Mode, Settings, read
from tests.deploy.tools import ROOT

EXAMPLE = ROOT / ".env.example"
TO_FILL_IN = {"API_BASE_URL", "OAUTH2_CLIENT_ID", "OAUTH2_CLIENT_SECRET", "ORY_PROJECT_SLUG", "OPENAI_API_KEY"}
"""What the example shows a value for that is not the default."""


@pytest.fixture(autouse=True)
def nothing_else_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.removesuffix("_FILE").lower() in Settings.model_fields:
            monkeypatch.delenv(name)


def test_it_has_every_setting_and_no_other() -> None:
    assert {name.lower() for name in dotenv_values(EXAMPLE)} == set(Settings.model_fields)


def test_the_service_would_start_with_it_as_it_is_and_say_that_its_vectors_are_mock() -> None:
    settings: Settings = read(_env_file=EXAMPLE)
    assert settings.mode is Mode.MOCK
    assert settings.openai_api_key.get_secret_value() == PLACEHOLDER_API_KEY


def test_what_need_not_be_filled_in_shows_the_default() -> None:
    shown: Settings = read(_env_file=EXAMPLE)
    for name, field in Settings.model_fields.items():
        if name.upper() not in TO_FILL_IN:
            assert getattr(shown, name) == field.default, name.upper()


def test_every_setting_is_explained_in_a_line_before_it() -> None:
    lines = EXAMPLE.read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if line and not line.startswith("#"):
            assert before.startswith("# "), line


def test_docker_reads_it_as_we_do() -> None:
    # `docker run --env-file` knows neither quotes nor comments behind a value
    for name, value in dotenv_values(EXAMPLE, interpolate=False).items():
        assert f"{name}={value}" in EXAMPLE.read_text().splitlines(), name
