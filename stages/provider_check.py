"""Tries a provider without cost: asks it for its list of models, with the key that embedding requests send."""

from __future__ import annotations

from typing import Any

import msgspec
import requests

from common.api import tls_and_proxy
from common.failures.errors import Error
from common.settings.settings import Mode, Settings

TIMEOUT_S = 10.0
NO_LIST = frozenset({403, 404, 405, 501})
"""A gateway without such a list, or a key that may only embed: that is not an error."""


def openai(settings: Settings) -> str:
    """Ask OpenAI, or a compatible server. Raises `Error` with the remedy."""
    url = f"{settings.openai_base_url}/models"
    key = settings.openai_api_key.get_secret_value()
    response = _get(url, "OPENAI_BASE_URL", {"Authorization": f"Bearer {key}"})
    if response.status_code == 401:
        raise Error(f"{url} answered 401: the key is wrong or expired; check OPENAI_API_KEY")
    return _listed(response, "OPENAI_BASE_URL", "data")


def ollama(settings: Settings) -> str:
    """Ask an Ollama server. Raises `Error` with the remedy."""
    return _listed(_get(f"{settings.ollama_base_url}/api/tags", "OLLAMA_BASE_URL", {}), "OLLAMA_BASE_URL", "models")


CHECKS = {
    Mode.OPENAI: {"OpenAI": openai},
    Mode.OLLAMA: {"Ollama": ollama},
    Mode.HYBRID: {"OpenAI": openai, "Ollama": ollama},
    Mode.MOCK: {},
}
"""Mode → the names of its providers, and how each is tried."""


def _get(url: str, variable: str, headers: dict[str, str]) -> requests.Response:
    try:
        return requests.get(
            url, headers=headers, timeout=TIMEOUT_S, allow_redirects=False, verify=tls_and_proxy.ca_file()
        )
    except requests.exceptions.SSLError as error:
        raise Error(f"{url}: the TLS handshake failed; check {variable} and the certificates") from error
    except requests.exceptions.Timeout as error:
        raise Error(f"{url} did not answer within {TIMEOUT_S:g} s; check {variable}") from error
    except requests.exceptions.RequestException as error:
        raise Error(f"{url} cannot be reached; is the server running, and is {variable} right?") from error


def _listed(response: requests.Response, variable: str, key: str) -> str:
    """What the server listed. Raises `Error` if another server seems to have answered."""
    url, status = response.url, response.status_code
    if status in NO_LIST:
        return f"{url} answered {status}: the server is there; its key and models could not be tried"
    if status != 200:
        raise Error(f"{url} answered {status}; check {variable}")
    try:
        value: Any = msgspec.json.decode(response.content)
    except msgspec.DecodeError as error:
        raise Error(f"{url} answered with a page instead of JSON; check {variable}") from error
    found = value.get(key) if isinstance(value, dict) else value
    return f"{url} lists {len(found) if isinstance(found, list) else 0} models"
