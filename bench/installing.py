"""Installs on demand, into `.bench/`, what the benchmarks need beyond the developer's tools.

That is a redis-server, the packages of BullMQ and of Celery, and matplotlib for the plots. Git ignores the folder, and
removing it is harmless. What cannot be installed, such as without a network, is reported and left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.machine import ROOT

CACHE = ROOT / ".bench"
BULLMQ = ROOT / "bench" / "peers" / "bullmq"
CELERY = ROOT / "bench" / "peers" / "celery"
PLOT = ROOT / "bench" / "plot"
INSTALL_TIMEOUT_S = 300.0
MARK = ".installed"
"""A file in each folder, written last: what was installed there."""
REDIS_PACKAGES = ("redis-tools", "libjemalloc2", "liblzf1", "libatomic1")
"""Debian packages that redis-server consists of; its package has only a link to redis-check-rdb in redis-tools."""


class UnavailableError(Exception):
    """Something cannot be installed or started here; the text says what and why."""


def install_all() -> Iterator[str]:
    """Install everything; yields a line for what cannot be had here."""
    wanted: dict[str, Callable[[], object]] = {
        "redis-server": redis_server,
        "BullMQ": lambda: node_project(BULLMQ),
        "Celery": lambda: python_packages(CELERY),
        "matplotlib": lambda: python_packages(PLOT),
    }
    for name, install in wanted.items():
        try:
            install()
        except UnavailableError as error:
            yield f"{name} cannot be installed: {error}"


def is_installed(name: str) -> bool:
    """Whether the cache has a folder of this name."""
    return (CACHE / name / MARK).exists()


def has_redis() -> bool:
    """Whether a redis-server is there already."""
    return shutil.which("redis-server") is not None or is_installed("redis")


def redis_server() -> tuple[list[str], dict[str, str]]:
    """The command of redis-server, and the variables it needs: the installed one, or Debian's unpacked in the cache."""
    if found := shutil.which("redis-server"):
        return [found], {}
    folder = _installed("redis", " ".join(REDIS_PACKAGES), _unpack_redis)
    libraries = sorted({str(path.parent) for path in folder.rglob("*.so.*")})
    return [str(folder / "usr/bin/redis-server")], {"LD_LIBRARY_PATH": ":".join(libraries)}


def node_project(source: Path) -> Path:
    """A copy of a Node project with its packages."""
    if not shutil.which("npm"):
        raise UnavailableError("npm is missing")
    wanted = (source / "package.json").read_text()
    folder = _installed(source.name, wanted, lambda into: _npm(source, into))
    for script in source.glob("*.js"):
        shutil.copy(script, folder)
    return folder


def python_packages(source: Path) -> Path:
    """A folder for PYTHONPATH with what the `requirements.txt` of a program names."""
    requirements = source / "requirements.txt"

    def install(into: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts"]
        _run(*pip, "--target", str(into), "--requirement", str(requirements))

    return _installed(source.name, requirements.read_text(), install)


def _installed(name: str, wanted: str, install: Callable[[Path], None]) -> Path:
    """The folder of this name in the cache, installed again if something else is wanted."""
    folder = CACHE / name
    mark = folder / MARK
    if mark.exists() and mark.read_text() == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sys.stderr.write(f"Installing {name} into {folder} …\n")
    install(folder)
    mark.write_text(wanted)
    return folder


def _unpack_redis(folder: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise UnavailableError("redis-server is missing; install it with the system's package manager")
    if os.geteuid() == 0:
        _run("apt-get", "-qq", "update")
    _run("apt-get", "-qq", "download", *REDIS_PACKAGES, folder=folder)
    for package in folder.glob("*.deb"):
        _run("dpkg", "-x", str(package), str(folder))
        package.unlink()
    (folder / "usr/bin/redis-server").symlink_to("redis-check-rdb")


def _npm(source: Path, folder: Path) -> None:
    shutil.copy(source / "package.json", folder)
    _run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", folder=folder)


def _run(*command: str, folder: Path | None = None) -> None:
    """Run a command to its end; raises `UnavailableError` with its last words if it fails."""
    try:
        done = subprocess.run(
            command, cwd=folder, check=False, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{command[0]}: {error}") from error
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise UnavailableError(f"{command[0]} failed: {words[-1][:200]}")
