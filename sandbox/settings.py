"""Every setting, by service; `PUT /settings` changes some of them, and refuses what it does not know."""

from typing import Annotated, Any, Literal, TypeVar

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]

_OPENAI_MODELS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
_OLLAMA_MODELS = {"nomic-embed-text:latest": 768}
_OLLAMA_LIBRARY = {**_OLLAMA_MODELS, "mxbai-embed-large:latest": 1024, "all-minilm:latest": 384}


class ServiceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every service has."""

    keep_alive_seconds: Seconds = 75.0
    """Idle connections are closed after this; 0: never."""
    latency_seconds: Seconds = 0.0
    """Every request waits this long before it is looked at."""


class ApiSettings(ServiceSettings, frozen=True, kw_only=True):
    """The NestJS application."""

    keep_alive_seconds: Seconds = 5.0
    """Node's default."""
    honour_limit: bool = True
    """False: `limit` is ignored and everything pending is returned, as the reference API does."""
    page_cap: Count = 0
    """No page is longer than this, whatever was asked; 0: no cap."""
    order: Literal["createdAt", "shuffled", "newest"] = "createdAt"
    """Order of a page."""
    body_limit: Count = 100 * 1024
    """Bytes; express's default. Larger bodies are refused with 413; 0: no limit."""
    keep_results: bool = False
    """Keep every accepted result in memory."""
    check_bodies: bool = True
    """False: a PATCH that begins like a success is believed to be one (27 µs of CPU for 19 kB instead of 43)."""


class OAuth2Settings(ServiceSettings, frozen=True, kw_only=True):
    """The token endpoint. Both the id and the secret change when URL-encoded, to catch a client that does not."""

    client_id: str = "sandbox:client"
    client_secret: str = "s3cret+/=&:~"
    auth_methods: tuple[Literal["client_secret_basic", "client_secret_post"], ...] = ("client_secret_basic",)
    """Hydra registers a client for one method and refuses the other."""
    scopes: tuple[str, ...] = ("read", "write")
    """Any other is `invalid_scope`."""
    audiences: tuple[str, ...] = ()
    """Any other is refused; empty: all are accepted."""
    expires_in: Annotated[float, msgspec.Meta(gt=0)] = 3600.0
    """Seconds."""
    omit_expires_in: bool = False
    """Leave `expires_in` out of the answer; tokens expire all the same."""


class OpenAISettings(ServiceSettings, frozen=True, kw_only=True):
    """The OpenAI look-alike; the numbers are OpenAI's own limits."""

    models: dict[str, int] = msgspec.field(default_factory=_OPENAI_MODELS.copy)
    """Known models and their dimensions."""
    bad_keys: tuple[str, ...] = ("sk-bad",)
    """Refused with 401; every other key is good."""
    max_inputs: Count = 2048
    max_input_tokens: Count = 8192
    max_tokens_per_request: Count = 300_000
    headers: dict[str, str] = {}
    """Sent with every embedding, `x-ratelimit-*` for example."""
    noise: float = 0.0
    """Size of a random difference between two embeddings of one text: OpenAI is not deterministic."""


class OllamaSettings(ServiceSettings, frozen=True, kw_only=True):
    """The Ollama look-alike."""

    models: dict[str, int] = msgspec.field(default_factory=_OLLAMA_MODELS.copy)
    """Models that are there, and their dimensions."""
    pullable: dict[str, int] = msgspec.field(default_factory=_OLLAMA_LIBRARY.copy)
    """Models that a pull can get."""
    pull_seconds: Seconds = 0.2
    """Changing it hurries or slows the pulls that are under way, too."""
    pull_steps: Annotated[int, msgspec.Meta(ge=1)] = 5
    """Progress lines of one pull."""
    pull_error: str | None = None
    """Ends every pull, half-way, after its 200."""
    context_tokens: Count = 2048
    """Longer inputs are cut, or refused when `truncate` is false."""
    max_inputs: Count = 0
    """More are refused with 400 (about 600 have been, by real servers); 0: no cap."""
    max_under_way: Count = 0
    """More requests at once are refused with 503; 0: no cap."""
    noise: float = 0.0
    """As for OpenAI."""


SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def updated(settings: SettingsT, changes: dict[str, Any]) -> SettingsT:
    """`settings` with `changes`; raises msgspec.ValidationError, in words, for an unknown name or a wrong value."""
    return msgspec.convert({**msgspec.structs.asdict(settings), **changes}, type(settings))
