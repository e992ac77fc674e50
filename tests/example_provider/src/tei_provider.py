"""`tei`: Hugging Face's Text Embeddings Inference (https://huggingface.co/docs/text-embeddings-inference)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import requests

from common.failures.errors import Error, Throttled, Transient
from common.settings.settings import Settings
from stages.embedder.providers import BadInput, Caps, Embeddings, NeedsOperator
from stages.embedder.providers.redaction import redact


class TextEmbeddingsInference:
    """One server with one model. Several threads use it at the same time."""

    name = "tei"
    caps = Caps(inputs=32, tokens=16_384)  # the server's own defaults; smaller ones are learned from its refusals
    free = False

    def __init__(self, settings: Settings) -> None:
        self._url = os.environ["TEI_URL"]
        self._model = os.environ["TEI_MODEL"]
        self._timeout = settings.openai_timeout
        self.vendor = self._url

    def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Make one request; the error that it raises says what went wrong."""
        try:
            response = requests.post(f"{self._url}/embed", json={"inputs": list(texts)}, timeout=self._timeout)
        except requests.RequestException as error:
            raise Transient(redact(str(error), texts)) from error
        if response.status_code != 200:
            raise self._error(response, texts)
        try:
            matrix = np.array(response.json(), dtype=np.float32)
        except ValueError as error:
            raise Transient("the response is not a list of vectors") from error
        return Embeddings(matrix, tokens=0)  # it does not report tokens; bytes are counted instead

    def _error(self, response: requests.Response, texts: Sequence[str]) -> Error:
        words = redact(response.text, texts)  # one line, without anything from the texts
        match response.status_code:
            case 400 | 413 | 422:
                return BadInput(words)
            case 429:
                return Throttled(words, delay=1.0)
            case 401 | 403 | 404:
                return NeedsOperator(f"TEI_URL: {response.status_code}: {words}")
            case status:
                return Transient(f"{status}: {words}")

    def has(self, model: str) -> bool:
        """Other models are left to the providers of PROCESSING_MODE."""
        return model == self._model

    def notices(self) -> Mapping[str, str]:
        """Return nothing: there is nothing for /ready to report, such as a download."""
        return {}

    def close(self) -> None:
        """Do nothing: there is nothing to close."""
