"""The example of `docs/extending.md` is what the tests run, and it runs through the whole pipeline."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from sandbox.client import Sandbox
from sandbox.pipeline import ROOT, Pipeline

PACKAGE = ROOT / "tests" / "example_package"


def test_the_guide_shows_the_files_that_are_tested() -> None:
    guide = (ROOT / "docs" / "extending.md").read_text()
    shown = re.findall(r"<!-- the file (\S+),.*?-->\n```\w+\n(.*?)```", guide, re.DOTALL)
    assert [path for path, _ in shown] == [
        "tests/example_package/src/text_statistics.py",
        "tests/example_package/pyproject.toml",
    ]
    for path, text in shown:
        assert text == (ROOT / path).read_text(), path


def test_a_task_type_of_another_package_goes_through_the_whole_pipeline(sandbox: Sandbox, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    source = tmp_path / "package"
    subprocess.run(["cp", "-r", PACKAGE, source], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--target", installed, source],
        check=True,
    )  # fmt: skip
    sandbox.settings(api={"keep_results": True})
    folder = tmp_path / "run"
    folder.mkdir()
    with Pipeline(sandbox, folder, PYTHONPATH=installed, POLLING_INTERVAL_SECONDS=0.3) as pipeline:
        pipeline.wait_ready()
        counted, empty = sandbox.queue_tasks(
            [{"type": "text_statistics", "content": {"text": t}} for t in ("three short words", "")]
        )
        embedded = sandbox.queue(1)[0]
        ids = (counted, empty, embedded)
        pipeline.wait_until(lambda: all(sandbox.task(i)["state"] != "pending" for i in ids), "all three tasks")
        results = sandbox.results()
    assert results[counted] == {"characters": 17, "words": 3}
    assert results[empty]["error"] == {"code": "invalid_content", "message": "content.text is empty"}
    assert len(results[embedded]) == 1536
