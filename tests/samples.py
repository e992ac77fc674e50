"""Messages and settings for tests. Everything has a realistic default, so that a test names only what it is about."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from common.settings.settings import Settings, read
from common.task_types.text_embedding import DEFAULT_MODEL, TextEmbeddingContent
from common.wire import messages as m

TYPE = "text_embedding"
LEASED_AT = 1_750_000_000.0
ENVIRONMENT = {
    "API_BASE_URL": "http://127.0.0.1:1",
    "OAUTH2_TOKEN_URL": "http://127.0.0.1:1",
    "OAUTH2_CLIENT_ID": "client",
    "OAUTH2_CLIENT_SECRET": "canary-secret",
    "PROCESSING_MODE": "mock",
}
"""The variables that a process needs to start. Nothing listens at these addresses."""


def settings(**fields: Any) -> Settings:
    """Valid settings, independent of any `.env`."""
    needed = {name.lower(): value for name, value in ENVIRONMENT.items()}
    return read(**{"env_file": None, **needed, **fields})


def task(task_id: str, *, key: str = DEFAULT_MODEL, tokens: int = 5, attempt: int = 1) -> m.Task:
    content = msgspec.json.encode(TextEmbeddingContent(f"text of {task_id}", key))
    return m.Task(task_id, TYPE, key, content, tokens, LEASED_AT, attempt)


def tasks(*ids: str, key: str = DEFAULT_MODEL, tokens: int = 5, attempt: int = 1) -> m.Tasks:
    return m.Tasks([task(task_id, key=key, tokens=tokens, attempt=attempt) for task_id in ids])


def names(count: int, prefix: str = "t") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def vector(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


def result(task_id: str, *, leased_at: float = LEASED_AT, failure: m.Failure | None = None) -> m.Result:
    return m.Result(task_id, TYPE, leased_at, b"" if failure else vector(0.6, 0.8), failure=failure)


def token(name: str = "one", expires_at: float = 1e12) -> m.Token:
    return m.Token(f"secret {name}", expires_at, name)
