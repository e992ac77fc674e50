"""The examples in `docs/extending.md` are the files that the tests run, through the whole pipeline."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sandbox.pipeline import ROOT, Pipeline
from tests.extending import tei
from tests.pipelines import pipeline_with_own_sandbox

TASK_TYPE = ROOT / "tests" / "example_package"
PROVIDER = ROOT / "tests" / "example_provider"


def install(package: Path, scratch: Path, target: Path) -> None:
    source = scratch / package.name
    shutil.copytree(package, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--upgrade", "--target", target, source],
        check=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """With both packages installed, and nothing else changed."""
    scratch, installed = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for package in (TASK_TYPE, PROVIDER):
        install(package, scratch, installed)
    folder, keeping = tmp_path_factory.mktemp("run"), {"api": {"keep_results": True}}
    with tei.serving() as url:
        settings = {"PROCESSING_MODE": "openai", "PYTHONPATH": installed, "TEI_URL": url, "TEI_MODEL": tei.MODEL}
        with pipeline_with_own_sandbox(folder, keeping, POLLING_INTERVAL_SECONDS=0.3, **settings) as running:
            yield running


def test_the_guide_shows_the_files_that_are_tested() -> None:
    guide = (ROOT / "docs" / "extending.md").read_text()
    shown = re.findall(r"<!-- the file (\S+),.*?-->\n```\w+\n(.*?)```", guide, re.DOTALL)
    assert [path for path, _ in shown] == [
        "tests/example_package/src/text_statistics.py",
        "tests/example_package/pyproject.toml",
        "tests/example_provider/src/tei_provider.py",
        "tests/example_provider/pyproject.toml",
    ]
    for path, text in shown:
        assert text == (ROOT / path).read_text(), path


def test_a_task_type_of_another_package_goes_through_the_whole_pipeline(pipeline: Pipeline) -> None:
    sandbox = pipeline.sandbox
    counted, empty = sandbox.queue_tasks(
        [{"type": "text_statistics", "content": {"text": text}} for text in ("three short words", "")]
    )
    embedded = sandbox.queue(1)[0]
    ids = (counted, empty, embedded)
    pipeline.wait_until(lambda: all(sandbox.task(i)["state"] != "pending" for i in ids), "all three tasks")
    results = sandbox.results()
    assert results[counted] == {"characters": 17, "words": 3}
    assert results[empty]["error"] == {"code": "invalid_content", "message": "content.text is empty"}
    assert len(results[embedded]) == 1536


def test_a_provider_of_another_package_goes_through_the_whole_pipeline(pipeline: Pipeline) -> None:
    sandbox = pipeline.sandbox
    texts = [f"for the other provider {number}" for number in range(100)]
    poisoned, *ids = sandbox.queue_tasks([{"text": text, "model": tei.MODEL} for text in ("poisoned", *texts)])
    (openais,) = sandbox.queue_tasks([{"text": "for OpenAI"}])
    everyone = (poisoned, openais, *ids)
    pipeline.wait_until(lambda: all(sandbox.task(i)["state"] != "pending" for i in everyone), "all tasks")
    results = sandbox.results()
    received = np.array([results[task_id] for task_id in ids], dtype=np.float32)
    np.testing.assert_allclose(received, np.array(tei.vectors(texts), dtype=np.float32), atol=1e-6)
    error = results[poisoned]["error"]
    assert (error["code"], "Tokenization error" in error["message"]) == ("refused_by_provider", True)
    paid = Counter(tei.Handler.paid)
    assert paid.pop("canary") <= 4, "each of two embedders learns the length once, and may ask whether the text is bad"
    assert paid == Counter(texts), "each once, though the first request was refused with 429"
    assert len(results[openais]) == 1536
    metrics = pipeline.get("/metrics")[1]
    assert 'circuit_breaker_state{service="tei"}' in metrics
