"""The settings: one class, read once from the environment and `.env`. All problems are reported together.

The field `openai_api_key` is the variable `OPENAI_API_KEY`, and so on; the README's table lists them all. Every
variable may also name a file that contains its value, as containers do: `OPENAI_API_KEY_FILE=/run/secrets/openai`.
"""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from common.failures.errors import SettingsError
from common.settings.durations import go_duration
from common.settings.empty_values import EmptyValueSource
from common.settings.model_limits import Limit, Models, Strategy
from common.settings.secret_files import FileSource, UnreadableValue
from common.settings.unknown_names import unknown_names
from common.settings.values import (
    JSON,
    LOWER,
    BaseUrl,
    CacheBytes,
    Count,
    Endpoint,
    Folder,
    Interval,
    Key,
    Line,
    RequestsPerMinute,
    Seconds,
    Secret,
    Timeout,
    TimeZone,
    VectorLength,
)
from common.wire.timing import LONGEST_LEASE_S, SHORTEST_LEASE_S

PLACEHOLDER_API_KEY = "your_openai_api_key_here"
"""The value in `.env.example`. It selects mock mode (docs/architecture.md, section 6)."""

LONGEST_SOCKET_PATH = 107
"""Characters: the kernel's limit for the path of a Unix socket (unix(7))."""
LONGEST_SOCKETS_DIR = LONGEST_SOCKET_PATH - len("/token_broker.sock")
"""Characters that are left for RUNTIME_DIR."""


LONGEST_SHOWN, LONGEST_SENTENCE = 100, 250
"""Characters of a wrong value, and of what is wrong with it, that a report shows."""


class Mode(StrEnum):
    """Which provider embeds."""

    OPENAI = "openai"
    OLLAMA = "ollama"
    HYBRID = "hybrid"
    """Both: each model is sent to its own provider."""
    MOCK = "mock"
    """Vectors without any meaning, for tests and demos."""


class AuthMethod(StrEnum):
    """How the client identifies itself to the token endpoint (RFC 6749, 2.3.1); each client is registered for one."""

    BASIC = "client_secret_basic"
    """With the `Authorization` header."""
    POST = "client_secret_post"
    """With fields of the form."""


LeaseSeconds = Annotated[float, Field(ge=SHORTEST_LEASE_S, le=LONGEST_LEASE_S, allow_inf_nan=False)]


class Settings(BaseSettings):
    """All settings and their defaults. `repr` never shows a secret."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", extra="ignore", env_ignore_empty=True)

    # The API
    api_base_url: BaseUrl
    request_timeout: Timeout = 30
    polling_interval_seconds: Annotated[float, Field(ge=0.01, le=86_400, allow_inf_nan=False)] = 30
    api_connections: Annotated[int, Field(ge=1, le=256)] = 16
    api_requests_per_minute: RequestsPerMinute = 0

    # OAuth2
    oauth2_client_id: Line
    oauth2_client_secret: Secret
    ory_project_slug: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]*$")] = ""
    oauth2_token_url: Endpoint | None = None
    oauth2_auth_method: Annotated[AuthMethod, LOWER] = AuthMethod.BASIC
    oauth2_scope: Line = "read write"
    oauth2_audience: Line = ""

    # Providers
    processing_mode: Annotated[Mode, LOWER] = Mode.OPENAI
    openai_api_key: Key = SecretStr("")
    openai_base_url: BaseUrl = "https://api.openai.com/v1"
    openai_timeout: Timeout = 60
    ollama_base_url: BaseUrl = "http://localhost:11434"
    ollama_timeout: Timeout = 120
    ollama_model_download_timeout: Seconds = 600
    concurrency_limit: Annotated[int, Field(ge=1, le=256)] = 5
    embedder_processes: Annotated[int, Field(ge=1, le=64)] = 1
    embed_batch_size: Annotated[int, Field(ge=1, le=2048)] = 256
    embed_batch_tokens: Annotated[int, Field(ge=1, le=300_000)] = 300_000
    default_embedding_model: Line = "text-embedding-3-small"
    embedding_dimensions: Annotated[int, Field(ge=0, le=65_536)] = 0
    embedding_lengths: Annotated[dict[str, VectorLength], NoDecode, JSON] = {}
    embedding_cache_size: CacheBytes = 256 * 2**20
    truncate_long_texts: bool = False
    ollama_batch_size: Annotated[int, Field(ge=1, le=2048)] = 64
    ollama_keep_alive: Annotated[str, AfterValidator(go_duration)] = ""
    ollama_truncate: bool | None = None
    supported_models: Annotated[list[str], NoDecode, JSON] = []
    unknown_model: Annotated[Literal["wait", "fail"], LOWER] = "wait"
    fallback_models: Annotated[dict[str, str], NoDecode, JSON] = {}

    # When things fail
    max_retries: Annotated[int, Field(ge=0, le=100)] = 3
    retry_backoff_factor: Annotated[float, Field(ge=1, le=60, allow_inf_nan=False)] = 2.0
    circuit_breaker_threshold: Count = 5
    max_in_flight: Annotated[int, Field(ge=1, le=65_536)] = 4096
    lease_seconds: LeaseSeconds = 15
    max_dispatches: Count = 5

    # Several pipelines on one API
    claim_tasks: bool = False
    shard_index: Annotated[int, Field(ge=0)] = 0
    shard_count: Annotated[int, Field(ge=1, le=1024)] = 1

    # Quotas; 0 switches one off
    rate_limit_enabled: bool = True
    rate_limit_strategy: Annotated[Strategy, LOWER] = Strategy.ROLLING
    rate_limit_timezone: TimeZone = "UTC"
    rate_limit_per_minute: Limit = 0
    rate_limit_per_hour: Limit = 0
    rate_limit_per_day: Limit = 0
    rate_limit_per_week: Limit = 0
    rate_limit_per_month: Limit = 0
    rate_limit_tokens_per_minute: Limit = 0
    rate_limit_tokens_per_hour: Limit = 0
    rate_limit_tokens_per_day: Limit = 0
    rate_limit_tokens_per_week: Limit = 0
    rate_limit_tokens_per_month: Limit = 0
    rate_limit_requests_per_minute: Limit = 0
    rate_limit_models: Annotated[Models, NoDecode, JSON] = {}
    hold_seconds: Interval = 60

    # The process
    state_dir: Folder = Path("data")
    runtime_dir: Folder | None = None
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 8001
    log_level: str = "INFO"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  pydantic's secrets folder; `_FILE` replaces it
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment takes precedence over `.env`. In both, a variable may name a file."""
        return (
            init_settings,
            FileSource(settings_cls, env_settings),
            env_settings,
            EmptyValueSource(settings_cls, env_settings),
            FileSource(settings_cls, dotenv_settings),
            dotenv_settings,
            EmptyValueSource(settings_cls, dotenv_settings),
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if not self.ory_project_slug and not self.oauth2_token_url:
            problems.append(
                "ORY_PROJECT_SLUG: is required (the first part of https://SLUG.projects.oryapis.com), "
                "unless OAUTH2_TOKEN_URL is set"
            )
        if self.needs_openai_key and not self.openai_api_key.get_secret_value():
            problems.append(
                f"OPENAI_API_KEY: is required when PROCESSING_MODE is {self.processing_mode}; "
                "for a trial with meaningless vectors, set PROCESSING_MODE=mock"
            )
        if self.shard_index >= self.shard_count:
            problems.append(f"SHARD_INDEX: must be less than SHARD_COUNT ({self.shard_count}), not {self.shard_index}")
        if self.log_level.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
            problems.append(f"LOG_LEVEL: must be DEBUG, INFO, WARNING or ERROR, not {self.log_level!r}")
        if (length := len(str(self.sockets_dir))) > LONGEST_SOCKETS_DIR:
            problems.append(
                f"RUNTIME_DIR: {self.sockets_dir} has {length} characters, which is too long for the path of a socket; "
                f"set RUNTIME_DIR to a folder of at most {LONGEST_SOCKETS_DIR} characters, such as /run/atp"
            )
        if problems:
            raise SettingsError(problems)
        return self

    @property
    def needs_openai_key(self) -> bool:
        """Whether the mode sends requests to OpenAI."""
        return self.processing_mode in {Mode.OPENAI, Mode.HYBRID}

    @property
    def mode(self) -> Mode:
        """The mode in force: with the placeholder key, a mode that needs a real key becomes mock."""
        if self.needs_openai_key and self.openai_api_key.get_secret_value() == PLACEHOLDER_API_KEY:
            return Mode.MOCK
        return self.processing_mode

    def counts_tokens(self, model: str) -> bool:
        """Whether a token quota is in force for the model, so that its texts' tokens should be counted exactly."""
        all_models, models = self._token_limited
        return all_models or model in models

    @cached_property
    def _token_limited(self) -> tuple[bool, frozenset[str]]:
        """Whether a token limit is in force for all models, and the models that have their own."""
        if not self.rate_limit_enabled or self.mode is Mode.MOCK:  # mock tokens are bytes / 4, not cl100k's
            return False, frozenset()
        models = {name for name, own in self.rate_limit_models.items() if _limits_tokens(own)}
        return _limits_tokens(self), frozenset(models)

    @property
    def token_url(self) -> str:
        """The OAuth2 token endpoint."""
        return self.oauth2_token_url or f"https://{self.ory_project_slug}.projects.oryapis.com/oauth2/token"

    @property
    def sockets_dir(self) -> Path:
        """RUNTIME_DIR, or its default under STATE_DIR; absolute."""
        return (self.runtime_dir or self.state_dir / "run").absolute()


S = TypeVar("S", bound=Settings)


def _limits_tokens(limits: BaseModel) -> bool:
    return any(limit for name, limit in limits if "tokens_per_" in name)


def _short(text: str, longest: int = LONGEST_SHOWN) -> str:
    """The text in one line of the log."""
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= longest else f"{text[:longest]}…"


def _problem(error: dict[str, Any]) -> str:
    """One validation error as `VARIABLE: what is wrong`; it never contains the value of a secret."""
    unreadable = error.get("input")
    if isinstance(unreadable, UnreadableValue):
        return f"{unreadable.variable}: {unreadable.why}"
    variable = str(error["loc"][0]).upper() if error["loc"] else "settings"
    if error["type"] == "missing":
        return f"{variable}: is required"
    message = _short(str(error["msg"]).removeprefix("Value error, "), LONGEST_SENTENCE)
    message = message[0].lower() + message[1:]
    if error["type"] == "extra_forbidden":
        message = "this name is unknown"
    if inside := ".".join(str(place) for place in error["loc"][1:]):
        message = f"in {_short(inside)}: {message}"
    given = _short(repr(error.get("input")))
    shown = "" if "SECRET" in variable or "KEY" in variable or "@" in given else f" (it is {given})"
    return f"{variable}: {message}{shown}"


def read(kind: type[S] = Settings, **overrides: Any) -> S:  # type: ignore[assignment]
    """Read the settings. Raises `SettingsError` with all problems, each beginning with its variable's name."""
    try:
        return kind(**overrides)
    except ValidationError as error:
        problems = [_problem(dict(item)) for item in error.errors(include_url=False)]
        wrong = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
    # pydantic checks the fields against each other only when each one is valid. To report those problems too, read
    # again with valid values in place of the invalid ones.
    fields = ((name, kind.model_fields[name]) for name in wrong if name in kind.model_fields)
    valid = {name: "http://placeholder.invalid" if field.is_required() else field.default for name, field in fields}
    try:
        kind(**{**overrides, **valid})
    except SettingsError as error:
        problems += [problem for problem in error.problems if problem.split(":")[0].lower() not in wrong]
    raise SettingsError(problems)


def unknown_variables() -> list[str]:
    """One sentence for each variable, in the environment or in `.env`, that is probably a misspelt setting."""
    in_file = DotEnvSettingsSource(Settings).env_vars
    return unknown_names([*os.environ, *in_file], Settings.model_fields)


def read_or_exit() -> Settings:
    """Read the settings of a process. If there are problems, print them to standard error and exit with status 2."""
    try:
        return read()
    except SettingsError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        sys.exit(2)
