"""The version is one fact, `common.__version__`, and the same wherever it is shown."""

from __future__ import annotations

import platform
import re
from importlib.metadata import version
from pathlib import Path

from common import __version__
from common.api.curl import request_headers
from common.process import metrics
from stages.token_broker.issuer import Issuer
from tests import samples
from tests.token_broker.endpoint import serving

ROOT = Path(__file__).parent.parent


def test_the_package_has_the_version() -> None:
    assert version("ai-task-processor") == __version__


def test_the_changelog_describes_the_version() -> None:
    assert re.search(
        rf"^## {re.escape(__version__)} - \d{{4}}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )


def test_requests_to_the_api_name_the_version() -> None:
    assert f"User-Agent: ai-task-processor/{__version__}" in request_headers("a token")


def test_requests_for_a_token_name_the_version() -> None:
    with serving() as endpoint:
        Issuer(samples.settings(oauth2_token_url=endpoint.url), lambda *_: None).fetch()
    assert [request.headers["user-agent"] for request in endpoint.asked] == [f"ai-task-processor/{__version__}"]


def test_a_metric_of_every_process_shows_the_versions() -> None:
    (family,) = [family for family in metrics.snapshot() if family.name == "build_info"]
    (sample,) = family.samples
    assert (sample.labels, sample.value) == ({"version": __version__, "python": platform.python_version()}, 1.0)
