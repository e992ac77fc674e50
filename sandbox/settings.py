"""Every setting, by service. `PUT /settings` changes some of them, and rejects unknown names."""

from typing import Annotated, Any, Literal, TypeVar

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]

_OPENAI_MODELS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
_OLLAMA_MODELS = {"nomic-embed-text:latest": 768}
_OLLAMA_LIBRARY = {**_OLLAMA_MODELS, "mxbai-embed-large:latest": 1024, "all-minilm:latest": 384}


class ServiceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings that every service has."""

    keep_alive_seconds: Seconds = 75.0
    """Idle connections are closed after this time; 0: never."""
    latency_seconds: Seconds = 0.0
    """Delay before each request is handled."""


class ApiSettings(ServiceSettings, frozen=True, kw_only=True):
    """The NestJS application."""

    keep_alive_seconds: Seconds = 5.0
    """The default is Node's."""
    honour_limit: bool = True
    """False: `limit` is ignored and all pending tasks are returned, as the reference API does."""
    page_cap: Count = 0
    """The largest number of tasks in a page, whatever `limit` says; 0: no cap."""
    order: Literal["createdAt", "shuffled", "newest"] = "createdAt"
    """The order of the tasks in a page."""
    page_key: str = ""
    """If set, a page of pending tasks is an object with the array under this key."""
    refuse_second_claims: bool = False
    """Refuse `in_progress` with 409 unless the task is pending. The reference API accepts any claim."""
    no_content: Literal[0, 200, 204] = 0
    """If set, the response without a body when nothing is pending."""
    body_limit: Count = 100 * 1024
    """Bytes; the default is that of express. Larger bodies are refused with 413; 0: no limit."""
    keep_results: bool = False
    """Keep every accepted result in memory."""
    throttle_limit: Count = 0
    """Requests to one handler (such as `PATCH :id`) in a window; more are refused with 429. 0: no throttle."""
    throttle_seconds: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    """Length of the throttle's window, and of the block that follows if there were too many."""
    workers: Count = 0
    """PATCHes that are worked on at a time, while others wait; 0: any number, at once."""
    work_seconds: Seconds = 0.0
    """How long a worker takes for one PATCH."""
    check_bodies: bool = True
    """False: a PATCH that begins like a success is accepted unread (27 µs of CPU for 19 kB instead of 43)."""


class OAuth2Settings(ServiceSettings, frozen=True, kw_only=True):
    """The token endpoint. URL encoding changes both id and secret, to detect a client that does not encode them."""

    client_id: str = "sandbox:client"
    client_secret: str = "s3cret+/=&:~"
    auth_methods: tuple[Literal["client_secret_basic", "client_secret_post"], ...] = ("client_secret_basic",)
    """Hydra registers a client for one method and rejects the other."""
    scopes: tuple[str, ...] = ("read", "write")
    """Allowed scopes; any other is rejected as `invalid_scope`."""
    audiences: tuple[str, ...] = ()
    """Allowed audiences; empty: all are allowed."""
    expires_in: Annotated[float, msgspec.Meta(gt=0)] = 3600.0
    """Lifetime of a token, in seconds."""
    omit_expires_in: bool = False
    """Leave `expires_in` out of the response; tokens still expire."""
    valid_after: Seconds = 0.0
    """A token is refused for this time after it was issued, as if the endpoint's clock were ahead of the API's."""
    response_form: Literal["json", "json_with_mark", "form"] = "json"
    """How a token is sent: as JSON, as JSON after a byte order mark and before a line break, or form-encoded."""


class OpenAISettings(ServiceSettings, frozen=True, kw_only=True):
    """The stand-in for OpenAI; the numbers are OpenAI's own limits."""

    models: dict[str, int] = msgspec.field(default_factory=_OPENAI_MODELS.copy)
    """Known models and their dimensions."""
    bad_keys: tuple[str, ...] = ("sk-bad",)
    """API keys that are refused with 401; every other key is accepted."""
    max_inputs: Count = 2048
    """Inputs in one request."""
    max_input_tokens: Count = 8192
    """Tokens of one input."""
    max_tokens_per_request: Count = 300_000
    """Tokens of all inputs of one request together."""
    headers: dict[str, str] = {}
    """Headers of every embedding response, for example `x-ratelimit-*`."""
    ignore_dimensions: bool = False
    """Send vectors of the model's own length whatever was asked for, as some compatible servers do."""
    noise: float = 0.0
    """Standard deviation of the noise in each component: OpenAI's embeddings of one text differ slightly."""


class OllamaSettings(ServiceSettings, frozen=True, kw_only=True):
    """The stand-in for Ollama."""

    models: dict[str, int] = msgspec.field(default_factory=_OLLAMA_MODELS.copy)
    """Installed models and their dimensions."""
    pullable: dict[str, int] = msgspec.field(default_factory=_OLLAMA_LIBRARY.copy)
    """Models that can be pulled, and their dimensions."""
    pull_seconds: Seconds = 0.2
    """Duration of one pull; a change also affects the pulls under way."""
    pull_steps: Annotated[int, msgspec.Meta(ge=1)] = 5
    """Progress lines of one pull."""
    pull_error: str | None = None
    """The error with which every pull ends, half-way, after its 200; None: pulls succeed."""
    context_tokens: Count = 2048
    """Longer inputs are truncated, or refused when `truncate` is false."""
    max_inputs: Count = 0
    """More inputs in one request are refused with 400 (real servers have refused about 600); 0: no cap."""
    max_under_way: Count = 0
    """More concurrent requests are refused with 503; 0: no cap."""
    noise: float = 0.0
    """The same as for OpenAI."""


SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def updated(settings: SettingsT, changes: dict[str, Any]) -> SettingsT:
    """`settings` with `changes`. Raises msgspec.ValidationError for an unknown name or an invalid value."""
    return msgspec.convert({**msgspec.structs.asdict(settings), **changes}, type(settings))
