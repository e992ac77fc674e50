"""The settings: required variables, defaults, all problems reported together by name, and secrets never shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.settings.model_limits import Strategy
from common.settings.settings import PLACEHOLDER_API_KEY, AuthMethod, Mode, Settings, read, unknown_variables
from tests.common.settings_problems import only, problems

pytestmark = pytest.mark.usefixtures("settings_environment")


def test_the_defaults_are_those_of_the_design() -> None:
    settings: Settings = read()
    expected = {
        "oauth2_scope": "read write",
        "oauth2_audience": "",
        "oauth2_auth_method": AuthMethod.BASIC,
        "openai_base_url": "https://api.openai.com/v1",
        "openai_timeout": 60,
        "processing_mode": Mode.OPENAI,
        "ollama_base_url": "http://localhost:11434",
        "ollama_timeout": 120,
        "ollama_model_download_timeout": 600,
        "polling_interval_seconds": 30,
        "concurrency_limit": 5,
        "embedder_processes": 1,
        "request_timeout": 30,
        "max_retries": 3,
        "retry_backoff_factor": 2.0,
        "circuit_breaker_threshold": 5,
        "max_in_flight": 4096,
        "lease_seconds": 15,
        "max_dispatches": 5,
        "hold_seconds": 60,
        "rate_limit_enabled": True,
        "rate_limit_strategy": Strategy.ROLLING,
        "rate_limit_timezone": "UTC",
        **{f"rate_limit_per_{period}": 0 for period in ("minute", "hour", "day", "week", "month")},
        **{f"rate_limit_tokens_per_{period}": 0 for period in ("minute", "hour", "day", "week", "month")},
        "state_dir": Path("data"),
        "runtime_dir": None,
        "metrics_port": 8001,
        "log_level": "INFO",
    }
    assert {name: getattr(settings, name) for name in expected} == expected
    assert settings.sockets_dir == Path("data/run").absolute()
    assert settings.token_url == "https://slug.projects.oryapis.com/oauth2/token"
    assert settings.mode is Mode.OPENAI


@pytest.mark.parametrize("variable", ["API_BASE_URL", "OAUTH2_CLIENT_ID", "OAUTH2_CLIENT_SECRET"])
def test_a_missing_required_variable_is_reported_by_name(variable: str) -> None:
    assert only(**{variable: ""}) == f"{variable}: is required"


def test_either_the_ory_project_or_the_token_url_is_required() -> None:
    assert only(ORY_PROJECT_SLUG="").startswith("ORY_PROJECT_SLUG: is required")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORY_PROJECT_SLUG", "")
        patch.setenv("OAUTH2_TOKEN_URL", "http://hydra:4444/oauth2/token")
        assert read().token_url == "http://hydra:4444/oauth2/token"


def test_every_problem_is_reported_at_once_by_variable_name(tmp_path: Path) -> None:
    found = problems(
        API_BASE_URL="ftp://api",
        OAUTH2_CLIENT_ID="",
        OAUTH2_CLIENT_SECRET="",
        OAUTH2_CLIENT_SECRET_FILE=str(tmp_path / "missing"),
        ORY_PROJECT_SLUG="",
        OPENAI_API_KEY="",
        METRICS_PORT="99999",
        RATE_LIMIT_TIMEZONE="Mars/Olympus",
        LOG_LEVEL="LOUD",
        RUNTIME_DIR="/tmp/" + "x" * 100,
    )
    variables = [problem.split(":")[0] for problem in found]
    assert sorted(variables) == [
        "API_BASE_URL",
        "LOG_LEVEL",
        "METRICS_PORT",
        "OAUTH2_CLIENT_ID",
        "OAUTH2_CLIENT_SECRET_FILE",
        "OPENAI_API_KEY",
        "ORY_PROJECT_SLUG",
        "RATE_LIMIT_TIMEZONE",
        "RUNTIME_DIR",
    ]


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("API_BASE_URL", "api.example", "must be an http:// or https:// address (it is 'api.example')"),
        ("OLLAMA_BASE_URL", "http://", "must be an http:// or https:// address"),
        ("OAUTH2_TOKEN_URL", "http://hydra:99999/token", "port out of range 0-65535"),
        ("PROCESSING_MODE", "magic", "'openai', 'ollama', 'hybrid' or 'mock' (it is 'magic')"),
        ("OAUTH2_AUTH_METHOD", "private_key_jwt", "'client_secret_basic' or 'client_secret_post'"),
        ("RATE_LIMIT_STRATEGY", "sliding", "'rolling' or 'fixed'"),
        ("RATE_LIMIT_ENABLED", "maybe", "boolean"),
        ("RATE_LIMIT_PER_DAY", "-1", "greater than or equal to 0 (it is '-1')"),
        ("REQUEST_TIMEOUT", "0", "greater than or equal to 0.1"),
        ("OPENAI_TIMEOUT", "nan", "finite"),
        ("LEASE_SECONDS", "0.001", "greater than or equal to 1"),
        ("LEASE_SECONDS", "86400", "less than or equal to 55"),
        ("LEASE_SECONDS", "inf", "finite"),
        ("POLLING_INTERVAL_SECONDS", "0.0001", "greater than or equal to 0.01"),
        ("HOLD_SECONDS", "1e-9", "greater than or equal to 0.1"),
        ("HOLD_SECONDS", "1e300", "less than or equal to"),
        ("MAX_IN_FLIGHT", "9" * 5000, "in"),
        ("SHARD_COUNT", "0", "greater than or equal to 1"),
        ("SHARD_INDEX", "-1", "greater than or equal to 0"),
        ("METRICS_PORT", "-1", "greater than or equal to 0"),
        ("EMBEDDING_LENGTHS", '{"m": 1e400}', "in m"),
        ("RATE_LIMIT_MODELS", '{"m": {"per_day": 1}, "m": {"per_day": 2}}', "has 'm' twice"),
        ("FALLBACK_MODELS", '{"a": "b", "a": "c"}', "has 'a' twice"),
        ("SUPPORTED_MODELS", "NaN", "must be JSON, which has no NaN"),
        ("SUPPORTED_MODELS", "[1]", "string"),
        ("OAUTH2_CLIENT_ID", " client", "must not begin or end with a space"),
        ("OAUTH2_CLIENT_ID", "  ", "must not begin or end with a space"),
        ("OAUTH2_AUDIENCE", "https://api\x1b[31m", "must not contain line breaks, tabs or other control characters"),
        ("DEFAULT_EMBEDDING_MODEL", "model\n", "must not begin or end with a space"),
        ("DEFAULT_EMBEDDING_MODEL", "mo\x07del", "must not contain line breaks, tabs or other control characters"),
        ("STATE_DIR", "/tmp/a\nb", "must not contain line breaks, tabs or other control characters"),
        ("REQUEST_TIMEOUT", "0.01", "greater than or equal to 0.1"),
        ("OLLAMA_TIMEOUT", "0", "greater than or equal to 0.1"),
        ("RATE_LIMIT_MODELS", "[" * 100_000, "must be JSON that is nested less deeply"),
        ("FALLBACK_MODELS", '{"a":' * 50_000, "must be JSON that is nested less deeply"),
        ("RATE_LIMIT_MODELS", '{"m": {"per_day": NaN}}', "must be JSON, which has no NaN"),
        ("RATE_LIMIT_MODELS", '{"m": {"per_day": ' + "9" * 5000 + "}}", "limit"),
        ("SUPPORTED_MODELS", '{"a": 1}', "list"),
        ("API_BASE_URL", "http://api.example/a b", "must not contain spaces, line breaks or backslashes"),
        ("API_BASE_URL", "http://api.example\n", "must not contain spaces, line breaks or backslashes"),
        ("OLLAMA_BASE_URL", "http://ollama\\api", "must not contain spaces, line breaks or backslashes"),
        ("API_BASE_URL", "http://api.example?limit=3", "must not contain a query (?)"),
        ("API_BASE_URL", "http://api.example/#top", "must not contain a fragment (#)"),
        ("OAUTH2_TOKEN_URL", "http://id.example/token#x", "must not contain a fragment (#)"),
        ("API_BASE_URL", "http://api.example:99999", "port out of range"),
        ("API_BASE_URL", "http://exa{mple", "must have a valid host name"),
        ("OAUTH2_SCOPE", "read\nwrite", "must not contain line breaks, tabs or other control characters"),
        ("OAUTH2_CLIENT_ID", "client\tid", "must not contain line breaks, tabs or other control characters"),
        ("RETRY_BACKOFF_FACTOR", "0.5", "greater than or equal to 1"),
        ("EMBEDDER_PROCESSES", "0", "greater than or equal to 1"),
        ("CONCURRENCY_LIMIT", "five", "integer"),
        ("ORY_PROJECT_SLUG", "evil.example/", "match pattern"),
        ("RATE_LIMIT_TIMEZONE", "../../etc/passwd", "must be an IANA time zone such as Europe/Berlin"),
        ("LOG_LEVEL", "TRACE", "must be DEBUG, INFO, WARNING or ERROR, not 'TRACE'"),
    ],
)
def test_a_wrong_value_is_shown_with_what_is_wrong(variable: str, value: str, says: str) -> None:
    problem = only(**{variable: value})
    assert problem.startswith(f"{variable}: ")
    assert says in problem


@pytest.mark.parametrize("variable", ["API_BASE_URL", "OPENAI_BASE_URL", "OLLAMA_BASE_URL", "OAUTH2_TOKEN_URL"])
@pytest.mark.parametrize("address", ["http://user:canary@api.example", "https://canary@api.example/path"])
def test_an_address_with_credentials_is_refused_without_repeating_them(variable: str, address: str) -> None:
    problem = only(**{variable: address})
    assert problem.startswith(f"{variable}: must not contain a user name or password")
    assert "canary" not in problem


TWICE = '{"' + "z" * 100_000 + '": 1, "' + "z" * 100_000 + '": 1}'


@pytest.mark.parametrize(
    "value", ["[" * 100_000, '"' + "x" * 100_000, '{"' + "y" * 100_000 + '": []}', "[1," * 40_000, TWICE]
)
@pytest.mark.parametrize("variable", ["RATE_LIMIT_MODELS", "SUPPORTED_MODELS", "FALLBACK_MODELS", "EMBEDDING_LENGTHS"])
def test_a_report_shows_the_beginning_of_a_long_value_in_one_line(variable: str, value: str) -> None:
    for problem in problems(**{variable: value}):
        assert problem.startswith(f"{variable}: ")
        assert len(problem) < 500
        assert problem.isprintable()


@pytest.mark.parametrize("secret", ["   ", "canary\nsecret", "canary\x00".replace("\x00", "\x01")])
def test_a_secret_that_cannot_be_meant_is_refused_without_repeating_it(secret: str) -> None:
    problem = only(OAUTH2_CLIENT_SECRET=secret)
    assert problem.startswith("OAUTH2_CLIENT_SECRET: must not ")
    assert "canary" not in problem


@pytest.mark.parametrize("key", ["canary key", "canary\nkey", "canäry"])
def test_a_key_that_no_header_can_carry_is_refused_without_repeating_it(key: str) -> None:
    problem = only(OPENAI_API_KEY=key)
    assert problem.startswith("OPENAI_API_KEY: must not contain spaces, line breaks")
    assert "can" not in problem.removeprefix("OPENAI_API_KEY: must not contain spaces, line breaks or characters that")


def test_a_token_endpoint_may_have_a_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTH2_TOKEN_URL", "https://id.example/token?tenant=7")
    settings: Settings = read()
    assert settings.token_url == "https://id.example/token?tenant=7"


def test_misspelt_variables_of_the_environment_and_of_the_file_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATE_LIMIT_PER_MINTE", "5")
    Path(".env").write_text("RATE_LIMIT_PER_HUOR=5\nAPI_BASE_URL=http://x\n")
    assert [sentence.split()[0] for sentence in unknown_variables()] == ["RATE_LIMIT_PER_HUOR", "RATE_LIMIT_PER_MINTE"]


def test_a_choice_may_be_written_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCESSING_MODE", "Mock")
    monkeypatch.setenv("RATE_LIMIT_STRATEGY", "FIXED")
    monkeypatch.setenv("OAUTH2_AUTH_METHOD", "Client_Secret_Post")
    settings: Settings = read()
    assert (settings.mode, settings.rate_limit_strategy) == (Mode.MOCK, Strategy.FIXED)
    assert settings.oauth2_auth_method is AuthMethod.POST


@pytest.mark.parametrize("mode", ["openai", "hybrid"])
def test_the_placeholder_key_means_mock_and_no_key_is_an_error(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCESSING_MODE", mode)
    assert read().mode is Mode(mode)
    monkeypatch.setenv("OPENAI_API_KEY", PLACEHOLDER_API_KEY)
    assert read().mode is Mode.MOCK
    assert only(OPENAI_API_KEY="").startswith(f"OPENAI_API_KEY: is required when PROCESSING_MODE is {mode}")


@pytest.mark.parametrize("mode", ["ollama", "mock"])
def test_modes_that_do_not_use_openai_need_no_key(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCESSING_MODE", mode)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert read().mode is Mode(mode)


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_PORT", "")
    assert read().metrics_port == 8001


def test_a_socket_path_that_is_too_long_for_the_kernel_is_reported_with_the_remedy(tmp_path: Path) -> None:
    found = only(STATE_DIR=str(tmp_path / ("y" * 60)))
    assert found.startswith("RUNTIME_DIR: ")
    assert "set RUNTIME_DIR to a folder of at most 89 characters, such as /run/atp" in found


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    settings: Settings = read()
    assert settings.oauth2_client_secret.get_secret_value() == "canary-secret"
    (tmp_path / "secret").write_bytes(b"canary\xff")
    shown = [
        repr(settings),
        str(settings),
        *problems(OAUTH2_CLIENT_SECRET_FILE=str(tmp_path / "secret"), METRICS_PORT="x"),
        only(OAUTH2_TOKEN_URL="//user:canary-password@host"),
    ]
    assert "canary" not in "".join(shown)


def test_a_process_with_problems_exits_with_status_2_and_no_traceback() -> None:
    code = "from common.settings.settings import read_or_exit; read_or_exit()"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "METRICS_PORT": "x", "API_BASE_URL": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert done.returncode == 2
    lines = done.stderr.decode().splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["API_BASE_URL", "METRICS_PORT"]
    assert done.stdout == b""


# X_FILE
