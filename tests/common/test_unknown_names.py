"""Which variables are told of as misspelt settings."""

from __future__ import annotations

import pytest

from common.settings.settings import Settings
from common.settings.unknown_names import FOREIGN, unknown_names


def told(*names: str) -> list[str]:
    return unknown_names(names, Settings.model_fields)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("RATE_LIMIT_PER_MINTE", "RATE_LIMIT_PER_MINUTE"),
        ("rate_limit_per_minte", "RATE_LIMIT_PER_MINUTE"),
        ("RATE_LIMIT_PER_MINUTES", "RATE_LIMIT_PER_MINUTE"),
        ("OPENAI_APIKEY", "OPENAI_API_KEY"),
        ("OAUTH2_CLIENT_SECRETT", "OAUTH2_CLIENT_SECRET"),
        ("OAUTH2_CLIENT_SECRET_FILES", "OAUTH2_CLIENT_SECRET_FILE"),
        ("POLLING_INTERVAL_SECOND", "POLLING_INTERVAL_SECONDS"),
        ("EMBEDDER_PROCESSE", "EMBEDDER_PROCESSES"),
        ("METRIC_PORT", "METRICS_PORT"),
        ("MAX_INFLIGHT", "MAX_IN_FLIGHT"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("OLLAMA_BASEURL", "OLLAMA_BASE_URL"),
        ("OLAMA_BASE_URL", "OLLAMA_BASE_URL"),
    ],
)
def test_a_misspelt_setting_is_told_of_with_the_nearest_right_name(name: str, nearest: str) -> None:
    (sentence,) = told(name)
    assert sentence == f"{name.upper()} is not a setting, and is ignored: did you mean {nearest}?"


@pytest.mark.parametrize("name", ["RATE_LIMIT_BURST", "OAUTH2_GRANT", "EMBEDDING_SPEED", "CIRCUIT_BREAKER_PAUSE"])
def test_a_name_that_begins_like_our_own_settings_is_told_of_even_if_none_is_near(name: str) -> None:
    (sentence,) = told(name)
    assert sentence.startswith(f"{name} is not a setting, and is ignored: the nearest one is ")


def test_settings_and_the_files_of_their_values_are_not_told_of() -> None:
    names = [name.upper() for name in Settings.model_fields]
    assert told(*names, *(f"{name}_FILE" for name in names), *Settings.model_fields) == []


def test_variables_of_other_programs_are_not_told_of() -> None:
    others = [
        "PATH",
        "HOME",
        "API_URL",
        "LOG_DIR",
        "MAX_MEMORY",
        "DEFAULT_REGION",
        "STATE",
        "REQUESTS_CA_BUNDLE",
        "METRICS",
    ]
    assert told(*FOREIGN, *others, "KUBERNETES_SERVICE_HOST", "SUPERVISOR_ENABLED", "NODE_ENV", "MONGO_URL") == []
