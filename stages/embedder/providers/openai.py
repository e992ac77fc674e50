"""OpenAI's embeddings endpoint, and every compatible server (OPENAI_BASE_URL), through the `openai` SDK.

The SDK's retries are off (there is one retry loop, provider_call.py), and its responses are decoded by responses.py.
The request is made with `client.post`, the SDK's documented way to any endpoint: `embeddings.create` checks each
text again (16 µs an input), and always sends `encoding_format`, which some servers refuse.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from common.failures.errors import Error, Permanent, Transient
from common.process import metrics
from common.settings.settings import Settings
from stages.embedder.providers import (
    AskAgain,
    BadInput,
    Caps,
    Embeddings,
    ProviderServerError,
    odd_forms,
    rate_limit_headers,
    responses,
    sending,
)
from stages.embedder.providers.model_lengths import known_length
from stages.embedder.providers.model_list import ModelList
from stages.embedder.providers.openai_errors import dropped_field, names_a_limit, refusal
from stages.embedder.providers.optional_fields import OptionalFields
from stages.embedder.providers.redaction import redact
from stages.embedder.providers.request_metrics import RequestMetrics

MAX_INPUTS = 2048
"""Inputs of one request (API reference). Its limit of 300,000 tokens is the upper bound of EMBED_BATCH_TOKENS."""

LIST_TIMEOUT_S = 5.0
"""Seconds to wait for the list of models of a compatible server."""


class OpenAI:
    """One HTTP client, used by all threads."""

    name = "openai"
    free = False

    def __init__(self, settings: Settings) -> None:
        self.caps = Caps(MAX_INPUTS, settings.embed_batch_tokens)
        self.vendor = settings.openai_base_url
        self._key = settings.openai_api_key.get_secret_value()
        self._official = urlsplit(settings.openai_base_url).hostname == "api.openai.com"
        self._fields = OptionalFields(settings.embedding_dimensions, is_base64_certain=self._official)
        self._models = ModelList(self._list)
        self._metrics = RequestMetrics(metrics.OPENAI_REQUESTS, metrics.OPENAI_TOKENS, "OPENAI_TIMEOUT")
        self._client = openai.OpenAI(
            api_key=self._key,
            base_url=settings.openai_base_url,
            max_retries=0,
            timeout=settings.openai_timeout,
            http_client=_client(settings.openai_timeout),
        )

    def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Embed the texts with one request."""
        fields = self._fields.of(model)
        try:
            found = self._request(model, texts, fields)
        except BadInput as error:
            self._fields.refused(model, fields)
            field = dropped_field(error, fields, model)
            if field is not None:
                self._fields.drop(model, field, str(error))
                raise AskAgain(f"requests for {model} leave out {field} from now on") from error
            if not names_a_limit(error) and self._begin_trial(model, fields, str(error)):
                raise AskAgain(f"the next request for {model} does not ask for base64") from error
            raise
        except (Transient, Permanent) as error:
            self._fields.failed(model, fields, time.monotonic())
            if isinstance(error, ProviderServerError):  # the retry, after the usual back-off, is the trial
                self._begin_trial(model, fields, str(error))
            raise
        if found.matrix.size:
            self._fields.succeeded(model, fields)
            return found
        self._fields.refused(model, fields)
        if self._begin_trial(model, fields, "the response has no vectors"):
            raise AskAgain(f"the next request for {model} does not ask for base64", may_be_paid=True)
        return found

    def has(self, model: str) -> bool | None:
        """Whether the server has the model: OpenAI's are known by name, a compatible server is asked."""
        if model.startswith("text-embedding-"):
            return True
        return False if self._official else self._models.has(model)

    def notices(self) -> Mapping[str, str]:
        """Return nothing: there are no messages about single models."""
        return {}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _list(self) -> frozenset[str] | None:
        """Return the server's models; None if it does not tell."""
        try:
            raw = self._client.get("/models", cast_to=httpx2.Response, options={"timeout": LIST_TIMEOUT_S})
            listed = odd_forms.json_value(raw.content)
        except (openai.OpenAIError, odd_forms.OddFormError):
            return None
        found = listed.get("data") if isinstance(listed, dict) else listed
        names = (entry.get("id") for entry in found if isinstance(entry, dict)) if isinstance(found, list) else ()
        return frozenset(name for name in names if isinstance(name, str)) or None

    def _begin_trial(self, model: str, fields: dict[str, Any], reason: str) -> bool:
        return self._fields.begin_trial(model, fields, reason, time.monotonic())

    def _request(self, model: str, texts: Sequence[str], fields: dict[str, Any]) -> Embeddings:
        request = {"model": model, "input": list(texts), **fields}
        try:
            raw = self._client.post("/embeddings", cast_to=httpx2.Response, body=request)
        except openai.APIStatusError as error:
            response = error.response
            self._metrics.count(model, str(response.status_code))
            raise self._refusal(response.status_code, response.content, response.headers, model, texts) from None
        except openai.APIConnectionError as error:
            raise self._broken(error, model, texts) from error
        body: bytes = raw.content
        if responses.has_error(body):
            self._metrics.count(model, "error_in_200")
            raise self._refusal(200, body, raw.headers, model, texts)
        asked: int = fields.get("dimensions", 0)
        decode, length, most = responses.decode_openai, asked or known_length(model) or 0, odd_forms.most_tokens(texts)
        found = self._metrics.read(model, str(raw.status_code), lambda: decode(body, len(texts), length, most))
        return found._replace(asked=asked, pause=rate_limit_headers.pause(raw.headers, found.tokens, time.time()))

    def _refusal(self, status: int, body: bytes, headers: Mapping[str, str], model: str, texts: Sequence[str]) -> Error:
        return refusal(status, body, headers, model=model, texts=texts, key=self._key)

    def _broken(self, error: openai.APIConnectionError, model: str, texts: Sequence[str]) -> Exception:
        if isinstance(error.__cause__, sending.NotCoveredError):
            return error.__cause__
        why = redact(str(error.__cause__ or error), texts, self._key)
        unsent = isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
        return self._metrics.broken(model, why, unsent=unsent, late=isinstance(error, openai.APITimeoutError))


class _BodyWithDeadline(httpx2.SyncByteStream):
    """A body that must be complete by a deadline: the SDK's timeout is for each read only."""

    def __init__(self, stream: httpx2.SyncByteStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            if time.monotonic() > self._deadline:
                raise httpx2.ReadTimeout("the response came too slowly")
            yield piece

    def close(self) -> None:
        self._stream.close()


def _client(timeout: float) -> httpx2.Client:
    """Make an HTTP client that allows `timeout` seconds for the headers and again `timeout` seconds for the body."""

    def prepare(request: httpx2.Request) -> None:
        limits = request.extensions.get("timeout", {})
        connect = min(limits.get("connect") or timeout, sending.left_s())
        request.extensions = {**request.extensions, "trace": sending.trace, "timeout": {**limits, "connect": connect}}

    def limit(response: httpx2.Response) -> None:
        if isinstance(response.stream, httpx2.SyncByteStream):
            response.stream = _BodyWithDeadline(response.stream, time.monotonic() + timeout)

    return openai.DefaultHttpxClient(timeout=timeout, event_hooks={"request": [prepare], "response": [limit]})
