"""Turn error responses of OpenAI and compatible servers into the project's errors.

Codes: https://platform.openai.com/docs/guides/error-codes. Gateways use the same statuses for other errors, so the
message counts too: Google's endpoint sends 400 for a bad key, vLLM sends 400 for a missing model.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from common.failures.errors import Error, Throttled, Transient
from stages.embedder.providers import (
    BadInput,
    NeedsOperator,
    ProviderServerError,
    UnknownModel,
    rate_limit_headers,
    refusal_words,
)
from stages.embedder.providers.redaction import redact
from stages.embedder.providers.responses import ErrorBody, error_body

DEFAULT_DELAY_S = 1.0
"""Seconds to wait after a 429 that does not say how long."""

_NO_QUOTA = re.compile(r"insufficient_quota|billing_hard_limit_reached|billing_not_active|access_terminated")
_BAD_KEY = re.compile(
    r"invalid_api_key|api[ _-]?key (?:not valid|is invalid|expired)|(?:invalid|incorrect) api[ _-]?key"
)
_NO_MODEL = re.compile(
    r"model_not_found|(?:no such|unknown) model"
    r"|model\b.{0,120}?(?:not found|does not exist|not exist|not available|no access)"
)
"""These words are never about a text."""
_TOO_LARGE = re.compile(r"request too large|max_tokens_per_request")
_UNKNOWN_FIELD = re.compile(
    r"encoding_format|\bdimensions\b.{0,60}?(?:support|permitted|allowed|unknown|invalid|matryoshka)"
    r"|(?:support|permitted|allowed|unknown|matryoshka|specifying).{0,60}?\bdimensions\b"
)
_LIMIT = re.compile(r"at most|\bmax|context.{0,20}?length|too (?:long|large|many)|exceed|budget")
"""A refusal with these words is about the size of the request or about a quota, not about one of its fields."""
_REQUEST_FIELDS = ("model", "dimensions", "encoding_format")
"""Fields that are the same for every text: halving does not help if one of them is refused."""


class BadField(BadInput):
    """The request is refused because of one of its fields, not because of a text."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


def refusal(
    status: int, body: bytes, headers: Mapping[str, str], *, model: str, texts: Sequence[str], key: str
) -> Error:
    """Turn an error response into one of the project's errors, with the provider's message."""
    details = error_body(body)
    words = redact(details.message, texts, key) or "no reason given"
    text = f"{details.code} {words.lower()}"  # redacted, so that a text which the provider repeats cannot decide
    names_model, is_unknown = refusal_words.about_model(text, model)
    if _BAD_KEY.search(text) or (status in {401, 402} and not is_unknown):
        return NeedsOperator(f"OPENAI_API_KEY is refused ({status}): {words}", model_only=names_model)
    if _NO_QUOTA.search(text):
        return NeedsOperator(f"the account's quota is used up ({status}): {words}", model_only=names_model)
    if (status in {200, 400, 403, 404, 422} and _NO_MODEL.search(text)) or (status in {401, 404} and is_unknown):
        return UnknownModel(f"the model {model} cannot be used ({status}): {words}")
    found = _by_status(status, details, words, headers, lone=len(texts) == 1)
    if isinstance(found, BadInput | ProviderServerError):
        found.names_model, found.names_unknown_model = names_model, is_unknown
    return found


def _by_status(status: int, details: ErrorBody, words: str, headers: Mapping[str, str], *, lone: bool) -> Error:
    if status in {429, 503, 529}:
        return _throttled(status, f"{details.code} {words.lower()}", words, headers, lone=lone)
    if status in {200, 500}:
        return ProviderServerError(f"{status}: {words}")
    if status in {408, 409, 425} or (status > 500 and status not in refusal_words.NEVER_ABOUT_A_TEXT):
        return Transient(f"{status}: {words}")
    is_about_account = status == 403 and refusal_words.about_account(words.lower())
    if status < 400 or status in refusal_words.NEVER_ABOUT_A_TEXT or is_about_account:
        return NeedsOperator(f"the request is refused ({status}), check OPENAI_BASE_URL and the key: {words}")
    return _refused(details, words if status in {400, 413, 422} else f"{status}: {words}")


def _throttled(status: int, text: str, words: str, headers: Mapping[str, str], *, lone: bool) -> Error:
    delay = rate_limit_headers.delay(headers, time.time())
    if status != 429:  # an outage, unless the headers say how long to wait
        return Throttled(f"{status}: {words}", delay) if delay else Transient(f"{status}: {words}")
    if _TOO_LARGE.search(text) and not lone:  # more tokens than the quota of a minute: only a smaller request can pass
        return BadInput(words)
    return Throttled(f"{status}: {words}", delay or DEFAULT_DELAY_S)


def _refused(details: ErrorBody, words: str) -> Error:
    place = details.param.split(".")
    field = next((field for field in _REQUEST_FIELDS if field in place), None)
    if field is None and (found := _UNKNOWN_FIELD.search(words.lower())):
        field = found[0] if found[0] == "encoding_format" else "dimensions"
    return BadField(words, field) if field else BadInput(words)


def names_a_limit(error: BadInput) -> bool:
    """Whether a limit is the reason of a refusal, so that no field can be."""
    return bool(_LIMIT.search(str(error).lower()))


def dropped_field(error: BadInput, fields: Mapping[str, Any], model: str) -> str | None:
    """Return the optional field to leave out from now on; None if the error is about a text.

    Raises `NeedsOperator` if this model needs the field: the texts are not the cause, and no other text would pass.
    """
    if not isinstance(error, BadField):
        return None
    is_optional = error.field == "encoding_format" or not model.startswith("text-embedding-3")
    if error.field in fields and is_optional:
        return error.field
    raise NeedsOperator(
        f"the request for {model} is refused because of its field {error.field}: {error}", model_only=True
    ) from error
