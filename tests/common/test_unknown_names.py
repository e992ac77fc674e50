"""Which variables are told of as misspelt settings."""

from __future__ import annotations

import pytest

from common.settings.settings import NAMES
from common.settings.unknown_names import FOREIGN, unknown_names


def told(*names: str) -> list[str]:
    return unknown_names(names, NAMES)


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
        ("OPENAI_KEY", "OPENAI_API_KEY"),
        ("OPENAI_URL", "OPENAI_BASE_URL"),
        ("OLLAMA_URL", "OLLAMA_BASE_URL"),
        ("OLLAMA_BASE", "OLLAMA_BASE_URL"),
        ("ORY_SLUG", "ORY_PROJECT_SLUG"),
        ("RETRY_BACKOFF", "RETRY_BACKOFF_FACTOR"),
        ("OPENAI_API_KEY_FIEL", "OPENAI_API_KEY_FILE"),
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
    names = [name.upper() for name in NAMES]
    assert told(*names, *(f"{name}_FILE" for name in names), *NAMES) == []


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


@pytest.mark.parametrize("service", ["EMBEDDER", "RATE_LIMIT", "OAUTH2_SERVER", "OPENAI", "OLLAMA"])
def test_what_kubernetes_sets_for_its_services_is_not_told_of(service: str) -> None:
    ends = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR")
    assert told(*(f"{service}_{end}" for end in ends)) == []


@pytest.mark.parametrize(
    "name",
    [
        "OAUTH2_PROXY_CLIENT_ID", "OAUTH2_PROXY_COOKIE_SECRET", "ORY_PROJECT_ID", "ORY_PROJECT_API_KEY", "ORY_SDK_URL",
        "OPENAI_MODEL", "OPENAI_PROXY", "OPENAI_PROJECT", "OPENAI_MAX_RETRIES", "AZURE_OPENAI_API_KEY", "OLLAMA_MODEL",
        "OLLAMA_CONTEXT_LENGTH", "OLLAMA_KV_CACHE_TYPE", "OLLAMA_NOPRUNE", "OLLAMA_SCHED_SPREAD", "OLLAMA_LLM_LIBRARY",
        "OLLAMA_GPU_OVERHEAD", "OLLAMA_API_KEY", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "REQUEST_METHOD", "API_TOKEN",
        "GRAFANA_ADMIN_PASSWORD", "BIND_ADDRESS", "HTTP_PROXY", "NO_PROXY",
    ],
)  # fmt: skip
def test_variables_that_share_a_beginning_with_a_setting_are_not_told_of(name: str) -> None:
    assert told(name) == []
