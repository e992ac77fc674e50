"""What the packages import is what `pyproject.toml` declares: neither less, nor more."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"common", "stages", "sandbox", "bench", "tests"}
NOT_IMPORTED = {
    "tzdata",  # zoneinfo reads its files
}
"""What the service needs without importing it."""


def declared(*extras: str) -> set[str]:
    """The distributions that are declared for the service, and for some of its extras."""
    wanted = [*PROJECT["dependencies"], *(need for extra in extras for need in PROJECT["optional-dependencies"][extra])]
    return {normalized(re.split(r"[^A-Za-z0-9._-]", need)[0]) for need in wanted}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def is_on_demand(path: Path) -> bool:
    """Whether a file belongs to a program whose packages are installed on demand: its folder has requirements."""
    return (path.parent / "requirements.txt").exists() and path.parent != ROOT


def imported(folders: Iterable[str]) -> set[str]:
    """The distributions that the modules in these folders import, wherever in a module."""
    names: set[str] = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        if "node_modules" in path.parts or "src" in path.parts or is_on_demand(path):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    others = names - OWN - set(sys.stdlib_module_names)
    distributions = packages_distributions()
    return {normalized(distributions[name][0]) for name in others}


@pytest.mark.parametrize(
    ("folders", "extras"),
    [
        (["common", "stages"], []),
        (["sandbox"], ["sandbox"]),
        (["bench", "tests"], ["sandbox", "dev"]),
    ],
    ids=["the service", "the sandbox", "benchmarks and tests"],
)
def test_every_imported_distribution_is_declared(folders: list[str], extras: list[str]) -> None:
    missing = imported(folders) - declared(*extras)
    assert not missing, f"{', '.join(folders)} import {sorted(missing)}: declare them in pyproject.toml, then make lock"


def test_every_declared_distribution_is_imported() -> None:
    assert declared() - imported(["common", "stages"]) == NOT_IMPORTED


def test_every_package_says_that_it_is_typed() -> None:
    for package in ("common", "stages", "sandbox"):
        assert (ROOT / package / "py.typed").exists()
