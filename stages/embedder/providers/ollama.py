"""Ollama's `POST /api/embed` (https://github.com/ollama/ollama/blob/main/docs/api.md), through `requests`.

The response has normalised embeddings in the order of the inputs, and `prompt_eval_count` for the tokens. A missing
model is a 404: ollama_pull.py downloads it, its tasks wait, and those of other models go on.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import requests
import urllib3

from common.api import tls_and_proxy
from common.failures.errors import Error, Throttled, Transient
from common.process import metrics
from common.settings.settings import Settings
from stages.embedder.providers import (
    BadInput,
    Caps,
    Embeddings,
    NeedsOperator,
    NoModelYet,
    ProviderServerError,
    odd_forms,
    ollama_pull,
    refusal_words,
    responses,
    sending,
)
from stages.embedder.providers.model_lengths import known_length
from stages.embedder.providers.model_list import ModelList
from stages.embedder.providers.rate_limit_headers import delay
from stages.embedder.providers.redaction import redact
from stages.embedder.providers.request_metrics import RequestMetrics

QUEUE_FULL_DELAY_S = 0.2
"""Seconds to wait when the server's queue is full: it does not tell how long, and each response frees a place."""

_TEXT_ERROR = re.compile(r"\bnan\b|unsupported value|context length|input length")
"""Errors about a text, which some versions send with status 500."""
_MISSING = re.compile(r"model\b.{0,120}?not found, try pulling it")
_MODEL_ERROR = re.compile(r"does not support embed|invalid model name|unknown model|error loading model")


class Ollama:
    """One Ollama server. Each thread has its own connection, because `requests` sessions are not thread-safe."""

    name = "ollama"
    free = False

    def __init__(self, settings: Settings) -> None:
        self.caps = Caps(settings.ollama_batch_size, settings.embed_batch_tokens)
        self.vendor = settings.ollama_base_url
        self._url = settings.ollama_base_url
        self._timeout = settings.ollama_timeout
        self._options = _options(settings)
        self._local = threading.local()
        self._models = ModelList(self._list)
        self._metrics = RequestMetrics(metrics.OLLAMA_REQUESTS, metrics.OLLAMA_TOKENS, "OLLAMA_TIMEOUT")
        self._downloads = ollama_pull.ModelDownload(
            self._url, settings.sockets_dir, settings.ollama_model_download_timeout
        )

    def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Embed the texts with one request; raises `NoModelYet` while the model is being downloaded."""
        self._downloads.raise_if_unavailable(model)
        try:
            status, headers, body = self._post({"model": model, "input": list(texts), **self._options})
        except requests.RequestException as error:
            raise self._broken(error, model, texts) from error
        wrong = status != 200 or responses.has_error(body)
        if wrong:
            self._metrics.count(model, "error_in_200" if status == 200 else str(status))
            raise self._refusal(status, body, headers, model, texts)
        known, most = known_length(model) or odd_forms.LONGEST_VECTOR, odd_forms.most_tokens(texts)
        asked = min(self._options.get("dimensions", 0), known)  # it only shortens
        found = self._metrics.read(model, "200", lambda: responses.decode_ollama(body, asked, most))
        return found._replace(asked=asked)

    def has(self, model: str) -> bool | None:
        """Whether the server lists the model; None if it has not answered yet."""
        return self._models.has(ollama_pull.tagged(model))

    def notices(self) -> Mapping[str, str]:
        """Return the models that are being downloaded, and their progress."""
        return self._downloads.progress()

    def close(self) -> None:
        """Stop downloads."""
        self._downloads.close()

    def _list(self) -> frozenset[str] | None:
        try:
            return ollama_pull.models(self._url)
        except (Transient, requests.RequestException):
            return None

    def _post(self, body: dict[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        """Make the request with a deadline for all of it: the timeout of `requests` is for each read only."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.verify = tls_and_proxy.ca_file()
            for scheme in ("http://", "https://"):
                self._local.session.mount(scheme, _Adapter())
        deadline = time.monotonic() + self._timeout
        url = f"{self._url}/api/embed"
        timeouts = (min(self._timeout, sending.left_s()), self._timeout)
        with self._local.session.post(url, json=body, timeout=timeouts, stream=True) as response:
            pieces = bytearray()
            try:
                while piece := response.raw.read1(65_536, decode_content=True):
                    pieces += piece
                    if time.monotonic() > deadline:
                        raise requests.Timeout("the response came too slowly")
            except urllib3.exceptions.HTTPError as error:
                raise requests.ConnectionError(error) from error
            return response.status_code, response.headers, bytes(pieces)

    def _refusal(self, status: int, body: bytes, headers: Mapping[str, str], model: str, texts: Sequence[str]) -> Error:
        """Turn an error response into one of the project's errors, with Ollama's message."""
        words = redact(responses.error_body(body).message, texts) or "no reason given"
        said = words.lower()
        if (status == 404 and "model" in said) or (status != 429 and _MISSING.search(said)):
            return self._missing(model, words)
        if status in {429, 503}:
            return Throttled(f"{status}: {words}", delay(headers, time.time()) or QUEUE_FULL_DELAY_S)
        if _MODEL_ERROR.search(said):
            return NeedsOperator(f"the model {model} cannot be used ({status}): {words}", model_only=True)
        return self._by_status(status, words, model)

    def _by_status(self, status: int, words: str, model: str) -> Error:
        said = words.lower()
        if status in {200, 500} and not _TEXT_ERROR.search(said):
            return ProviderServerError(f"{status}: {words}")
        if status == 408 or (status > 500 and status not in refusal_words.NEVER_ABOUT_A_TEXT):
            return Transient(f"{status}: {words}")
        if status in refusal_words.NEVER_ABOUT_A_TEXT or status == 401 or (status < 400 and status != 200):
            return NeedsOperator(f"the request is refused ({status}), check OLLAMA_BASE_URL: {words}")
        refused = BadInput(words if status in {200, 400, 413, 422, 500} else f"{status}: {words}")
        refused.names_model = refusal_words.about_model(said, model)[0]
        return refused

    def _missing(self, model: str, words: str) -> Error:
        self._downloads.want(model)
        try:
            self._downloads.raise_if_unavailable(model)
        except NoModelYet as error:
            return error
        return Transient(words)  # the download has just finished

    def _broken(self, error: requests.RequestException, model: str, texts: Sequence[str]) -> Error:
        unsent = isinstance(error, requests.ConnectTimeout) or "NewConnectionError" in str(error)
        late = isinstance(error, requests.Timeout)
        return self._metrics.broken(model, redact(str(error), texts), unsent=unsent, late=late)


class _Connection(urllib3.connection.HTTPConnection):
    """A connection that writes only what its charge covers."""

    def send(self, data: Any) -> None:
        """Connect if necessary, then look at the time again and write."""
        if self.sock is None:
            self.connect()
        sending.check()
        super().send(data)
        sending.note_written()


class _TlsConnection(_Connection, urllib3.connection.HTTPSConnection):
    """The same with TLS."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(requests.adapters.HTTPAdapter):
    """Lets `requests` use these connections."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


def _options(settings: Settings) -> dict[str, Any]:
    """Return the fields that are the same in all requests. OLLAMA_TRUNCATE defaults to TRUNCATE_LONG_TEXTS."""
    truncate = settings.truncate_long_texts if settings.ollama_truncate is None else settings.ollama_truncate
    options: dict[str, Any] = {"truncate": truncate}
    if settings.embedding_dimensions:
        options["dimensions"] = settings.embedding_dimensions
    keep_alive = settings.ollama_keep_alive
    if keep_alive:  # a duration such as 5m, or seconds
        options["keep_alive"] = json.loads(keep_alive) if re.fullmatch(r"-?\d+(\.\d+)?", keep_alive) else keep_alive
    return options
