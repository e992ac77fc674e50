"""What each process must not load: libraries that cost memory and time in a process that does not use them.

Each process is imported in an interpreter of its own, as supervisord would start it, but not run. What an embedder
loads depends on its provider, so its provider is made too.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.test_house import ROOT

IMPORT = """
import sys
from common.process import loop
loop.main = lambda *_: None
sys.argv = sys.argv[:1]
import stages.{stage}.__main__
"""
MAKE_PROVIDER = """
from stages.embedder.providers import registry
from tests.samples import settings
assert registry.BUILT_IN["{provider}"](settings(openai_api_key="sk-x"))
"""
EVERYWHERE = {
    "_pytest", "argparse", "asyncio", "boto3", "distutils", "doctest", "multiprocessing", "pdb", "psutil", "pydantic",
    "pydantic_core", "pydantic_settings", "rich", "sandbox", "supervisor", "tests", "unittest",
}  # fmt: skip
"""No process needs these."""
HTTP = {"http", "requests", "ssl", "urllib3"}
"""libcurl brings its own; only the pages are served by Python, and rare requests are sent with `requests`."""
SDK = {"anyio", "httpx2", "openai"}
VECTORS = {"numpy"}
TOKENIZER = {"regex", "tiktoken"}
"""Loaded when the first text is counted."""
SUPERVISORD = {"structlog", "prometheus_client", "zmq", "lmdb", "orjson"}
"""supervisord loads only our plug-in, which reads the settings, with msgspec."""


def loaded(code: str) -> set[str]:
    """The modules, and the packages they are in, that an interpreter has loaded after this code."""
    code = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    ("stage", "forbidden"),
    [
        ("fetcher", SDK | VECTORS | TOKENIZER | {"http", "requests", "urllib3"}),
        ("token_broker", SDK | VECTORS | TOKENIZER | {"pycurl"}),
        ("rate_limiter", SDK | TOKENIZER | HTTP | {"pycurl"}),
        ("publisher", SDK | TOKENIZER | HTTP),
        ("monitor", SDK | VECTORS | TOKENIZER | {"pycurl", "requests", "urllib3"}),
        ("embedder", SDK | TOKENIZER | HTTP | {"pycurl"}),
    ],
)
def test_a_process_loads_nothing_that_it_does_not_use(stage: str, forbidden: set[str]) -> None:
    assert loaded(IMPORT.format(stage=stage)) & (EVERYWHERE | forbidden) == set()


@pytest.mark.parametrize(
    ("provider", "forbidden"),
    [("mock", SDK | TOKENIZER | HTTP), ("ollama", SDK | TOKENIZER), ("openai", {"requests", "urllib3"})],
)
def test_an_embedder_loads_only_the_library_of_its_provider(provider: str, forbidden: set[str]) -> None:
    code = IMPORT.format(stage="embedder") + MAKE_PROVIDER.format(provider=provider)
    assert loaded(code) & forbidden == set()


def test_supervisord_loads_only_what_reads_the_settings() -> None:
    forbidden = (EVERYWHERE - {"supervisor"}) | SDK | VECTORS | TOKENIZER | SUPERVISORD
    assert loaded("import stages.supervisord_plugin") & forbidden == set()


def test_what_is_left_out_of_a_library_is_loaded_when_it_is_used() -> None:
    code = """
import common.process.metrics as metrics, prometheus_client, structlog
assert prometheus_client.Counter is metrics.Counter
assert prometheus_client.generate_latest(metrics.REGISTRY)
from prometheus_client import Summary, exposition
import asyncio
assert structlog.stdlib.asyncio.gather is asyncio.gather
"""
    assert {"asyncio", "http"} <= loaded(code)
