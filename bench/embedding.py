"""The CPU time per input from the provider's response to a checked vector.

It counts the CPU time of this process only, over real HTTP: the sandbox's OpenAI runs in another process. The batches
have 256 texts, the vectors 1,536 dimensions. The SDK returns lists of Python floats, whether the vectors are sent as
numbers or, its default, as base64. This service decodes base64 directly into one float32 matrix. The targets are under
30 µs, and under 2 µs for the mock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from statistics import median

import numpy as np
import openai

from bench.figures import Report
from bench.sizes import Size
from common.settings.settings import Settings, read
from sandbox.client import Sandbox
from stages.embedder.calling.vector_guard import VectorGuard
from stages.embedder.providers.mock import Mock
from stages.embedder.providers.openai import OpenAI

MODEL = "text-embedding-3-small"
BATCH = 256
ROUNDS = 15
TEXTS = [f"Task {number}: " + "lorem ipsum dolor sit amet " * 7 for number in range(BATCH)]

Embed = Callable[[Sequence[str]], object]


def measure(report: Report, size: Size) -> None:
    """Measure every way of getting vectors, each for at most `size.seconds` in each run."""
    with Sandbox.start() as sandbox:
        settings = read(
            api_base_url=sandbox.api,
            oauth2_client_id="id",
            oauth2_client_secret="secret",
            oauth2_token_url=sandbox.token_url,
            openai_api_key="sk-sandbox",
            openai_base_url=sandbox.openai,
        )
        sdk = openai.OpenAI(api_key="sk-sandbox", base_url=settings.openai_base_url)
        with sdk, closing(OpenAI(settings)) as provider:
            for _ in range(size.runs):
                for name, embed in contestants(settings, sdk, provider).items():
                    report.add(name, "µs/input", median(measured(embed, size.seconds)))


def contestants(settings: Settings, sdk: openai.OpenAI, provider: OpenAI) -> dict[str, Embed]:
    """The functions to compare, by name."""
    mock, guard = Mock(settings), VectorGuard()

    def numbers(texts: Sequence[str]) -> object:
        answer = sdk.embeddings.create(model=MODEL, input=list(texts), encoding_format="float")
        return np.array([item.embedding for item in answer.data], dtype=np.float32)

    def lists(texts: Sequence[str]) -> object:
        return [item.embedding for item in sdk.embeddings.create(model=MODEL, input=list(texts)).data]

    return {
        "SDK: JSON numbers, lists of floats, one matrix": numbers,
        "SDK: base64, lists of floats": lists,
        "ours: base64, one matrix": lambda texts: provider.embed(MODEL, texts),
        "ours, checked by the guard": lambda texts: guard.check(MODEL, provider.embed(MODEL, texts), len(texts)),
        "mock": lambda texts: mock.embed(MODEL, texts),
        "mock, checked by the guard": lambda texts: guard.check(MODEL, mock.embed(MODEL, texts), len(texts)),
    }


def measured(embed: Embed, seconds: float) -> list[float]:
    """Measure one batch after another, until there are enough or the time is over."""
    taken: list[float] = []
    deadline = time.monotonic() + seconds
    while not taken or (len(taken) < ROUNDS and time.monotonic() < deadline):
        taken.append(microseconds(embed))
    return taken


def microseconds(embed: Embed) -> float:
    """The CPU time of one batch, for one input."""
    began = time.process_time()
    embed(TEXTS)
    return (time.process_time() - began) / BATCH * 1e6
