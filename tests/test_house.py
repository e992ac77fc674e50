"""Guards the rules of the house: short files and functions, unique class names, no circular imports, plain docstrings.

Each rule yields one line for each finding, with the file and the line, so that a failure says what to change.
"""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
FILE_LINES = 320
FUNCTION_LINES = 45
MAIN_LINES = 60
"""The `__main__.py` of a stage only puts the stage together and runs it."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """One Python file."""

    path: str
    """Relative to the root of the repository."""
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """The dotted name; that of a package for its `__init__.py`."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def classes(self) -> Iterator[ast.ClassDef]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef))


@functools.cache
def modules(*folders: str) -> list[Module]:
    """Every module in these folders, in the order of their paths."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    texts = [(str(path.relative_to(ROOT)), path.read_text()) for path in paths]
    return [Module(path, text, ast.parse(text)) for path, text in texts]


def imported(module: Module, known: set[str]) -> set[str]:
    """The known modules that a module imports anywhere: at its top, in functions, or for type checking."""
    found: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from package import module` depends on that module, and not on the other contents of the package.
            found |= members & known if members <= known else members & known | {node.module}
    return found & known - {module.name}


def circles(imports: dict[str, set[str]]) -> Iterator[list[str]]:
    """Circles of imports: each module in a list is imported by the next one. Breaking all of them leaves none."""
    left = {name: set(others) for name, others in imports.items()}
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            found = list(error.args[1])
            yield found
            left[found[1]].discard(found[0])
        else:
            return


def report(findings: Iterator[str] | list[str]) -> str:
    """The findings, one a line."""
    return "\n".join(["", *findings])


def test_no_file_is_longer_than_320_lines() -> None:
    lengths = {m.path: len(m.text.splitlines()) for m in modules("common", "stages", "sandbox", "bench")}
    long = [f"{path}: {lines} lines, {FILE_LINES} allowed" for path, lines in lengths.items() if lines > FILE_LINES]
    assert not long, report(long)


def test_no_function_is_longer_than_45_lines() -> None:
    long = [
        f"{module.path}:{node.lineno}: {node.name} has {lines} lines, {FUNCTION_LINES} allowed"
        for module in modules("common", "stages", "sandbox", "bench")
        for node in ast.walk(module.tree)
        if isinstance(node, Function) and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    ]
    assert not long, report(long)


def test_no_main_module_of_a_stage_is_longer_than_60_lines() -> None:
    mains = [module for module in modules("stages") if module.path.endswith("/__main__.py")]
    assert mains
    lengths = {module.path: len(module.text.splitlines()) for module in mains}
    long = [f"{path}: {lines} lines, {MAIN_LINES} allowed" for path, lines in lengths.items() if lines > MAIN_LINES]
    assert not long, report(long)


def test_no_class_name_occurs_in_two_files() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for module in modules("common", "stages", "sandbox"):
        for name in {node.name for node in module.classes()}:
            places[name].append(module.path)
    twice = [f"{name} is the name of classes in {', '.join(paths)}" for name, paths in places.items() if len(paths) > 1]
    assert not twice, report(twice)


def test_no_modules_import_each_other_in_a_circle() -> None:
    every = modules("common", "stages", "sandbox")
    known = {module.name for module in every}
    imports = {module.name: imported(module, known) for module in every}
    assert sum(map(len, imports.values())) > len(every), "the imports were not found"
    found = [f"{' is imported by '.join(names)}" for names in circles(imports)]
    assert not found, report(found)


def test_the_check_for_circles_finds_one() -> None:
    assert list(circles({"a": {"b"}, "b": {"c"}, "c": set()})) == []
    assert list(circles({"a": {"b"}, "b": {"a"}})) in ([["a", "b", "a"]], [["b", "a", "b"]])
    assert len(list(circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"e"}, "e": {"d"}}))) == 2


def test_no_docstring_begins_with_of() -> None:
    begin = [
        f"{module.path}:{node.lineno}: begin the docstring with what it describes, not with 'Of'"
        for module in modules("common", "stages", "sandbox")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)  # fields have docstrings, too
        if isinstance(node.value.value, str) and node.value.value.lstrip().startswith("Of ")
    ]
    assert not begin, report(begin)
