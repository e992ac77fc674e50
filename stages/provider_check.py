"""Tries a provider without cost: asks it for its list of models, with the key that embedding requests send.

A server without such a list is not at fault: its line says that it could not be tried. A wrong path in the address gets
the same answers as a missing list, so the addresses that are usually meant are tried too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from common.api import tls_and_proxy
from common.failures.errors import Error
from common.settings.settings import Mode, Settings
from stages.embedder.providers.odd_forms import OddFormError, json_value
from stages.embedder.providers.ollama_pull import tagged

TIMEOUT_S = 10.0
"""Seconds for one request with its response."""
LARGEST_LIST_BYTES = 2**24


class Listing(NamedTuple):
    """How one provider lists its models."""

    base: str
    """The address in the settings."""
    path: str
    """The path of the list, which is appended to it."""
    variable: str
    """The variable of the address."""
    key: str
    """The member of the response that contains the list."""
    headers: dict[str, str]


def openai(settings: Settings) -> str:
    """Ask OpenAI, or a compatible server. Raises `Error` with the remedy."""
    key = settings.openai_api_key.get_secret_value()
    headers = {"Authorization": f"Bearer {key}"}
    names = _names(_listed(Listing(settings.openai_base_url, "/models", "OPENAI_BASE_URL", "data", headers)), "id")
    if isinstance(names, str):
        return names
    wanted = {settings.default_embedding_model} - {""} if settings.mode is Mode.OPENAI else set()
    missing = sorted(wanted - names) if names else []
    note = f"; {', '.join(missing)} (DEFAULT_EMBEDDING_MODEL) is not among them" if missing else ""
    return f"{settings.openai_base_url}/models lists {len(names)} models{note}"


def ollama(settings: Settings) -> str:
    """Ask an Ollama server. Raises `Error` with the remedy."""
    names = _names(_listed(Listing(settings.ollama_base_url, "/api/tags", "OLLAMA_BASE_URL", "models", {})), "name")
    if isinstance(names, str):
        return names
    wanted = set(settings.supported_models)
    if settings.mode is Mode.OLLAMA and not wanted and settings.default_embedding_model:
        wanted.add(settings.default_embedding_model)
    missing = sorted(model for model in wanted if tagged(model) not in names)
    note = f"; missing: {', '.join(missing)}, which the service downloads when a task needs it" if missing else ""
    return f"{settings.ollama_base_url}/api/tags lists {len(names)} models{note}"


CHECKS = {
    Mode.OPENAI: {"OpenAI": openai},
    Mode.OLLAMA: {"Ollama": ollama},
    Mode.HYBRID: {"OpenAI": openai, "Ollama": ollama},
    Mode.MOCK: {},
}
"""Mode → the names of its providers, and how each is tried."""


def _listed(listing: Listing) -> list[Any] | str:
    """The list, or why it could not be tried. Raises `Error` if the address or the key is wrong."""
    url, variable = f"{listing.base}{listing.path}", listing.variable
    status, body = _get(url, listing)
    if status == 401:
        remedy = "check OPENAI_API_KEY" if listing.headers else f"check {variable}"
        raise Error(f"{url} answered 401: the key is wrong or expired; {remedy}")
    if status in {404, 405}:
        for other in _usual_addresses(listing.base):
            if _lists_models(other, listing):
                raise Error(f"{url} answered {status}, but {other}{listing.path} lists models: set {variable}={other}")
    if status != 407 and (400 <= status < 500 or status == 501):
        return f"{url} answered {status}: the server is there; its key and models could not be tried"
    if status not in {200, 204}:
        raise Error(f"{url} answered {status}; check {variable}")
    try:
        value: Any = json_value(body) if body.strip() else ""
    except OddFormError as error:
        raise Error(f"{url} answered with a page instead of JSON; check {variable}") from error
    if isinstance(value, dict) and value.get("error"):
        raise Error(f"{url} answered with an error instead of a list; check {variable} and the key")
    found = value.get(listing.key, "") if isinstance(value, dict) else value
    if found is None:
        return []
    return found if isinstance(found, list) else f"{url} answered, but not with a list: models could not be tried"


def _names(listed: list[Any] | str, member: str) -> set[str] | str:
    """The names of the models; what is not a list stays."""
    if isinstance(listed, str):
        return listed
    return {str(entry.get(member)) for entry in listed if isinstance(entry, dict)}


def _usual_addresses(base: str) -> Iterator[str]:
    """What is usually meant if the path of the address is wrong."""
    parts = urlsplit(base)
    root = f"{parts.scheme}://{parts.netloc}"
    for other in (f"{base}/v1", base.removesuffix("/embeddings"), f"{root}/v1", root):
        if other != base:
            yield other


def _lists_models(base: str, listing: Listing) -> bool:
    try:
        status, body = _get(f"{base}{listing.path}", listing)
        value = json_value(body) if status == 200 else None
    except (Error, OddFormError):
        return False
    return isinstance(value, dict) and isinstance(value.get(listing.key), list)


def _get(url: str, listing: Listing) -> tuple[int, bytes]:
    """Status and body. Raises `Error` with the remedy if there is no response."""
    variable = listing.variable
    try:
        return _bounded_get(url, listing.headers)
    except requests.exceptions.SSLError as error:
        raise Error(f"{url}: the TLS handshake failed; check {variable} and the certificates") from error
    except requests.exceptions.ProxyError as error:
        raise Error(f"{url}: the proxy cannot be used; check HTTP_PROXY, HTTPS_PROXY and NO_PROXY") from error
    except (requests.exceptions.Timeout, TimeoutError) as error:
        raise Error(f"{url} did not answer within {TIMEOUT_S:g} s; check {variable}") from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        raise Error(f"{url} cannot be reached; is the server running, and is {variable} right?") from error


def _bounded_get(url: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Status and the beginning of the body. A response that comes too slowly raises `TimeoutError`."""
    deadline, body = time.monotonic() + TIMEOUT_S, bytearray()
    options: dict[str, Any] = {"allow_redirects": False, "verify": tls_and_proxy.ca_file()}
    with requests.get(url, headers=headers, timeout=TIMEOUT_S, stream=True, **options) as response:
        while len(body) < LARGEST_LIST_BYTES and (piece := response.raw.read1(65_536, decode_content=True)):
            body += piece
            if time.monotonic() > deadline:
                raise TimeoutError
        if response.raw.length_remaining and len(body) < LARGEST_LIST_BYTES:
            raise requests.ConnectionError("the response was cut")
        return response.status_code, bytes(body)
