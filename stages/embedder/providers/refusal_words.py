"""What the words of a refusal say about the model: a hint, used only where evidence is missing.

The words decide nothing about a text: a canary does. They tell whether a refusal that hits the canary too is about this
one model, so that others may still be served, and whether the provider does not have the model at all. Wordings of
OpenAI, Azure, Google, vLLM, LiteLLM, OpenRouter, Together, Mistral, Voyage, DashScope, LM Studio and llama.cpp.
"""

from __future__ import annotations

import re

NEVER_ABOUT_A_TEXT = frozenset({404, 405, 407, 411, 415, 426, 501, 505, 511})
"""Statuses that are about the address, the method, or a proxy. Any other refusal may be about a text."""

_MODEL = re.compile(r"\bmodels?\b|\bdeployments?\b")
_NEAR = r".{0,120}?"
_NOT_THERE = (
    r"not found|(?:does not|doesn.t|not) exist|unknown|not (?:a )?valid|invalid|not available|unavailable"
    r"|no (?:longer|endpoints)|not supported|unsupported|disabled|deprecated|decommissioned|not (?:been )?deployed"
    r"|not (?:be )?loaded|inaccessible"
    r"|(?:no|not have|unable to|cannot|can.t|could not) access|not (?:allowed|authorized|permitted|entitled)"
    r"|access (?:is )?denied|permission"
)
_UNKNOWN = re.compile(
    r"model_not_found|deploymentnotfound|invalid_model|model_access_denied|no such model|no endpoints found for"
    rf"|\b(?:models?|deployments?)\b{_NEAR}(?:{_NOT_THERE})|(?:{_NOT_THERE}){_NEAR}\b(?:models?|deployments?)\b"
)
_NOT_UNKNOWN = re.compile(
    r"no models? (?:is |are )?loaded|budget|quota|billing|credit|operation|overloaded|context|token"
)
"""The provider has the model, but does not serve it now, or not for this request."""

_ACCOUNT = re.compile(
    r"\bcountry|\bregion|territor|organi[sz]ation|\bproject\b|\baccount\b|\bip\b|api[ _-]?key|authenti|credential"
    r"|subscription|\blicen[cs]e"
)


def about_account(words: str) -> bool:
    """Whether the words (in lower case) are about who sends the request: then no text can be at fault."""
    return bool(_ACCOUNT.search(words))


def about_model(words: str, model: str) -> tuple[bool, bool]:
    """Whether the words (in lower case) are about the model, and whether they say that it is not there."""
    name = model.lower()
    names_it = bool(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", words))
    is_there = bool(_NOT_UNKNOWN.search(words))
    found = _UNKNOWN.search(words) or (names_it and re.search(_NOT_THERE, words))
    return names_it or bool(_MODEL.search(words)), bool(found) and not is_there
