from __future__ import annotations

import re
import tomllib

from common import __version__
from tests.deploy.tools import ROOT, installed

DOCKERFILE = (ROOT / "Dockerfile").read_text()
LOCK = (ROOT / "requirements.lock").read_text()


def test_hadolint_accepts_the_dockerfile() -> None:
    installed("hadolint", "Dockerfile")


def test_the_image_runs_supervisord_without_root() -> None:
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    assert DOCKERFILE.endswith('CMD ["supervisord", "-c", "supervisord.conf"]\n')
    assert "HEALTHCHECK" in DOCKERFILE


def test_its_label_shows_the_version() -> None:
    assert re.findall(r'org\.opencontainers\.image\.version="([^"]+)"', DOCKERFILE) == [__version__]


def test_only_listed_files_can_get_into_the_image() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line[0] == "!"} == {
        "common",
        "stages",
        "requirements.lock",
        "supervisord.conf",
    }


def test_the_image_installs_from_the_lock_file_with_hashes() -> None:
    assert "--require-hashes" in DOCKERFILE
    assert "https:" not in DOCKERFILE


def test_the_lock_file_has_every_dependency_with_its_hashes() -> None:
    locked = {}
    for pinned in re.split(r"\n(?=\S)", LOCK):
        if match := re.match(r"([a-z0-9-]+)==(\S+) \\", pinned):
            locked[match[1]] = match[2]
            assert "--hash=sha256:" in pinned, pinned
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[^a-z0-9-]", need)[0] for need in needed}
    assert names <= set(locked), "run: make lock"
    assert len(locked) > len(names)


def test_the_lock_file_contains_no_url() -> None:
    assert not re.search(r"://|--(index-url|extra-index-url|find-links|trusted-host)|file:", LOCK)


def test_requirements_txt_has_the_versions_of_the_lock_file() -> None:
    simple = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    locked = [line.removesuffix("\\").strip() for line in LOCK.splitlines() if re.match(r"[a-z0-9]", line)]
    assert simple == locked, "run: make lock"
    assert len(simple) > 20
