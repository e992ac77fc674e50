"""The settings: one class, read once from the environment and `.env`. All problems are reported together.

The field `openai_api_key` is the variable `OPENAI_API_KEY`, and so on; the README's table lists them all. Every
variable may also name a file that contains its value, as containers do: `OPENAI_API_KEY_FILE=/run/secrets/openai`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from msgspec import Meta

from common.failures.errors import SettingsError
from common.settings import sources
from common.settings.conversion import Problem, Unconvertible, convert
from common.settings.durations import go_duration
from common.settings.model_limits import TOKEN_LIMITS, Limit, Models, Strategy
from common.settings.secret_str import NO_SECRET
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
    Slug,
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


LeaseSeconds = Annotated[float, Meta(ge=SHORTEST_LEASE_S, le=LONGEST_LEASE_S)]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings and their defaults. `repr` never shows a secret."""

    # The API
    api_base_url: BaseUrl
    request_timeout: Timeout = 30
    polling_interval_seconds: Annotated[float, Meta(ge=0.01, le=86_400)] = 30
    api_connections: Annotated[int, Meta(ge=1, le=256)] = 16
    api_requests_per_minute: RequestsPerMinute = 0

    # OAuth2
    oauth2_client_id: Line
    oauth2_client_secret: Secret
    ory_project_slug: Slug = ""
    oauth2_token_url: Endpoint | None = None
    oauth2_auth_method: Annotated[AuthMethod, LOWER] = AuthMethod.BASIC
    oauth2_scope: Line = "read write"
    oauth2_audience: Line = ""

    # Providers
    processing_mode: Annotated[Mode, LOWER] = Mode.OPENAI
    openai_api_key: Key = NO_SECRET
    openai_base_url: BaseUrl = "https://api.openai.com/v1"
    openai_timeout: Timeout = 60
    ollama_base_url: BaseUrl = "http://localhost:11434"
    ollama_timeout: Timeout = 120
    ollama_model_download_timeout: Seconds = 600
    concurrency_limit: Annotated[int, Meta(ge=1, le=256)] = 5
    embedder_processes: Annotated[int, Meta(ge=1, le=64)] = 1
    embed_batch_size: Annotated[int, Meta(ge=1, le=2048)] = 256
    embed_batch_tokens: Annotated[int, Meta(ge=1, le=300_000)] = 300_000
    default_embedding_model: Line = "text-embedding-3-small"
    embedding_dimensions: Annotated[int, Meta(ge=0, le=65_536)] = 0
    embedding_lengths: Annotated[dict[str, VectorLength], JSON] = field(default_factory=dict)
    embedding_cache_size: CacheBytes = 256 * 2**20
    truncate_long_texts: bool = False
    ollama_batch_size: Annotated[int, Meta(ge=1, le=2048)] = 64
    ollama_keep_alive: Annotated[str, go_duration] = ""
    ollama_truncate: bool | None = None
    supported_models: Annotated[list[str], JSON] = field(default_factory=list)
    unknown_model: Annotated[Literal["wait", "fail"], LOWER] = "wait"
    fallback_models: Annotated[dict[str, str], JSON] = field(default_factory=dict)

    # When things fail
    max_retries: Annotated[int, Meta(ge=0, le=100)] = 3
    retry_backoff_factor: Annotated[float, Meta(ge=1, le=60)] = 2.0
    circuit_breaker_threshold: Count = 5
    max_in_flight: Annotated[int, Meta(ge=1, le=65_536)] = 4096
    lease_seconds: LeaseSeconds = 15
    max_dispatches: Count = 5

    # Several pipelines on one API
    claim_tasks: bool = False
    shard_index: Annotated[int, Meta(ge=0)] = 0
    shard_count: Annotated[int, Meta(ge=1, le=1024)] = 1

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
    rate_limit_models: Annotated[Models, JSON] = field(default_factory=dict)
    hold_seconds: Interval = 60

    # The process
    state_dir: Folder = Path("data")
    runtime_dir: Folder | None = None
    metrics_port: Annotated[int, Meta(ge=0, le=65_535)] = 8001
    log_level: str = "INFO"

    def __post_init__(self) -> None:
        """Check the settings against each other; raises `SettingsError` with all problems."""
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
        all_models = any(getattr(self, f"rate_limit_{limit}") for limit in TOKEN_LIMITS)
        own = self.rate_limit_models.items()
        return all_models, frozenset(
            name for name, limits in own if any(getattr(limits, each) for each in TOKEN_LIMITS)
        )

    @property
    def token_url(self) -> str:
        """The OAuth2 token endpoint."""
        return self.oauth2_token_url or f"https://{self.ory_project_slug}.projects.oryapis.com/oauth2/token"

    @property
    def sockets_dir(self) -> Path:
        """RUNTIME_DIR, or its default under STATE_DIR; absolute."""
        return (self.runtime_dir or self.state_dir / "run").absolute()


NAMES = tuple(field.name for field in fields(Settings))
"""All settings; in upper case, the variables."""


def defaults() -> dict[str, Any]:
    """The default of each setting that is not required."""
    found = {}
    for setting in fields(Settings):
        if setting.default_factory is not MISSING:
            found[setting.name] = setting.default_factory()
        elif setting.default is not MISSING:
            found[setting.name] = setting.default
    return found


def _short(text: str, longest: int = LONGEST_SHOWN) -> str:
    """The text in one line of the log."""
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= longest else f"{text[:longest]}…"


def _sentence(name: str, problem: Problem) -> str:
    """One problem as `VARIABLE: what is wrong`; it never contains the value of a secret."""
    variable = name.upper()
    message = _short(problem.message, LONGEST_SENTENCE)
    message = message[:1].lower() + message[1:]
    if inside := ".".join(problem.place):
        message = f"in {_short(inside)}: {message}"
    given = _short(repr(problem.given))
    shown = "" if "SECRET" in variable or "KEY" in variable or "@" in given else f" (it is {given})"
    return f"{variable}: {message}{shown}"


@cache
def _types() -> dict[str, Any]:
    return get_type_hints(Settings, include_extras=True)


def read(*, env_file: str | Path | None = ".env", **given: Any) -> Settings:
    """Read the settings, of which some may be given. Raises `SettingsError`: each problem begins with its variable."""
    values: dict[str, Any] = defaults()
    wrong: dict[str, list[str]] = {name: [f"{name.upper()}: is required"] for name in NAMES if name not in values}
    for name, value in {**sources.given_values(NAMES, env_file), **given}.items():
        wrong.pop(name, None)
        if isinstance(value, sources.UnreadableValue):
            wrong[name] = [f"{value.variable}: {value.why}"]
            continue
        try:
            values[name] = convert(_types()[name], value)
        except Unconvertible as error:
            wrong[name] = [_sentence(name, problem) for problem in error.problems]
    # The settings are checked against each other too, with valid values in place of the required ones that are wrong.
    others: dict[str, Any] = {name: "http://placeholder.invalid" for name in wrong if name not in values}
    try:
        settings = Settings(**values, **others)
    except SettingsError as error:
        also = [problem for problem in error.problems if problem.split(":")[0].lower() not in wrong]
    else:
        if not wrong:
            return settings
        also = []
    raise SettingsError([*(problem for problems in wrong.values() for problem in problems), *also])


def unknown_variables() -> list[str]:
    """One sentence for each variable, in the environment or in `.env`, that is probably a misspelt setting."""
    return unknown_names([*os.environ, *sources.variables_of_file(".env")], NAMES)


def read_or_exit() -> Settings:
    """Read the settings of a process. If there are problems, print them to standard error and exit with status 2."""
    try:
        return read()
    except SettingsError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        sys.exit(2)
