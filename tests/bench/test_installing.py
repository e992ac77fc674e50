"""What benchmarks install on demand: once, again when something else is wanted, and with a reason when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import installing
from bench.installing import UnavailableError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(installing, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def program(folder: Path, requirements: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "requirements.txt").write_text(requirements)
    return folder


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    run: list[tuple[str, ...]] = []
    monkeypatch.setattr(installing, "_run", lambda *command, **_: run.append(command))
    return run


def test_packages_are_installed_once(cache: Path, tmp_path: Path, commands: list[tuple[str, ...]]) -> None:
    source = program(tmp_path / "celery", "celery==1")
    assert not installing.is_installed("celery")
    assert installing.python_packages(source) == installing.python_packages(source) == cache / "celery"
    assert len(commands) == 1
    assert commands[0][-4:] == ("--target", str(cache / "celery"), "--requirement", str(source / "requirements.txt"))
    assert installing.is_installed("celery")


def test_packages_are_installed_again_when_others_are_wanted(
    cache: Path, tmp_path: Path, commands: list[tuple[str, ...]]
) -> None:
    installing.python_packages(program(tmp_path / "celery", "celery==1"))
    (cache / "celery" / "old").touch()
    installing.python_packages(program(tmp_path / "celery", "celery==2"))
    assert len(commands) == 2
    assert not (cache / "celery" / "old").exists()


def test_an_installation_that_failed_is_tried_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: str, folder: Path | None = None) -> None:
        raise UnavailableError("pip failed: no network")

    monkeypatch.setattr(installing, "_run", fails)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="no network"):
            installing.python_packages(program(tmp_path / "celery", "celery==1"))
    assert not installing.is_installed("celery")


def test_a_command_that_fails_is_told_with_its_last_words() -> None:
    with pytest.raises(UnavailableError, match="sh failed: the reason"):
        installing._run("sh", "-c", "echo first >&2; echo the reason >&2; exit 3")


def test_a_command_that_is_missing_is_told() -> None:
    with pytest.raises(UnavailableError, match="no-such-program"):
        installing._run("no-such-program")


def test_without_npm_a_node_project_is_unavailable(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UnavailableError, match="npm is missing"):
        installing.node_project(installing.BULLMQ)


def test_what_cannot_be_installed_is_named_and_the_rest_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(_: Path) -> Path:
        raise UnavailableError("npm is missing")

    installed: list[Path] = []
    monkeypatch.setattr(installing, "redis_server", lambda: ([], {}))
    monkeypatch.setattr(installing, "node_project", unavailable)
    monkeypatch.setattr(installing, "python_packages", installed.append)
    assert list(installing.install_all()) == ["BullMQ cannot be installed: npm is missing"]
    assert installed == [installing.CELERY, installing.PLOT]
