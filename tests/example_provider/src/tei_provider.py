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
    """One server, which has one model; used by several threads at once."""

    name = "tei"
    caps = Caps(inputs=32, tokens=16_384)  # the server's own defaults; smaller ones are learnt from its refusals
    free = False

    def __init__(self, settings: Settings) -> None:
        self._url = os.environ["TEI_URL"]
        self._model = os.environ["TEI_MODEL"]
        self._timeout = settings.openai_timeout
        self.vendor = self._url

    def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """One request; what goes wrong is told by the error that is raised."""
        try:
            answer = requests.post(f"{self._url}/embed", json={"inputs": list(texts)}, timeout=self._timeout)
        except requests.RequestException as error:
            raise Transient(redact(str(error), texts)) from error
        if answer.status_code != 200:
            raise self._error(answer, texts)
        try:
            matrix = np.array(answer.json(), dtype=np.float32)
        except ValueError as error:
            raise Transient("the answer is no list of vectors") from error
        return Embeddings(matrix, tokens=0)  # it does not say how many; the texts' bytes are taken instead

    def _error(self, answer: requests.Response, texts: Sequence[str]) -> Error:
        words = redact(answer.text, texts)  # one line, and nothing of the texts in it
        match answer.status_code:
            case 400 | 413 | 422:
                return BadInput(words)
            case 429:
                return Throttled(words, delay=1.0)
            case 401 | 403 | 404:
                return NeedsOperator(f"TEI_URL: {answer.status_code}: {words}")
            case status:
                return Transient(f"{status}: {words}")

    def has(self, model: str) -> bool:
        """What it has not is left to the providers of PROCESSING_MODE."""
        return model == self._model

    def notices(self) -> Mapping[str, str]:
        """Nothing goes on that /ready should tell, such as a download."""
        return {}

    def close(self) -> None:
        """There is nothing to let go of."""
