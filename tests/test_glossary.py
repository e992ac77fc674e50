"""The words of the project: each term of the glossary is used, and no retired word is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GLOSSARY = ROOT / "docs" / "glossary.md"
TERMS, RETIRED = GLOSSARY.read_text().split("## Retired words")
FOLDERS = ("common", "stages", "sandbox", "bench", "tests", "docs", "deploy", "examples")
FILES = (
    "README.md", "CONTRIBUTING.md", "SECURITY.md", "supervisord.conf", "Makefile", "Dockerfile", "docker-compose.yml",
    ".env.example", "pyproject.toml", "run.py",
)  # fmt: skip
SUFFIXES = {".py", ".md", ".yml", ".yaml", ".ts", ".mjs", ".sh", ".toml", ".json", ".conf"}
FOREIGN = {"node_modules", "dist", "__pycache__", "package-lock.json"}
ALLOWED = re.compile(r"(?<![a-z])(?:(?:in|single)[ _-]flights?|is no longer|there is no)(?![a-z])", re.IGNORECASE)


@cache
def texts() -> dict[str, str]:
    """Everything that people read or write here, by path; of the glossary only its terms."""
    paths = [ROOT / name for name in FILES]
    for folder in FOLDERS:
        paths += [path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES and path.is_file()]
    ours = [path for path in paths if not FOREIGN & set(path.relative_to(ROOT).parts) and path.exists()]
    found = {str(path.relative_to(ROOT)): path.read_text() for path in ours}
    del found["tests/test_glossary.py"]  # it names some of them
    return found | {"docs/glossary.md": TERMS}


def rows(section: str) -> list[tuple[str, str]]:
    """The rows of the table in a section, without its head."""
    return re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.MULTILINE)[1:]


def retired() -> dict[str, str]:
    """Each retired word, and what to use instead."""
    return {word: instead for words, instead in rows(RETIRED) for word in re.findall(r"`([^`]+)`", words)}


@cache
def pattern() -> re.Pattern[str]:
    """Matches every retired word as a whole word, also within identifiers: `task_tally`, `TaskTally`."""
    words = "|".join(re.escape(word).replace(r"\*", "[a-z]*") for word in retired())
    return re.compile(rf"(?<![a-z])(?:{words})(?![a-z])", re.IGNORECASE)


def findings(path: str, text: str) -> Iterator[str]:
    """One line for each retired word in a text."""
    words = ALLOWED.sub(lambda match: "." * len(match[0]), re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))
    for match in pattern().finditer(words):
        line = words.count("\n", 0, match.start()) + 1
        yield f"{path}:{line}: {match[0]!r} is retired (docs/glossary.md): {text.splitlines()[line - 1].strip()[:100]}"


def test_no_retired_word_is_used() -> None:
    assert len(texts()) > 300
    found = [finding for path, text in texts().items() for finding in findings(path, text)]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize(
    "line",
    ["until Nobody looks", "TaskTally", "task_tally", "this is no instance", "the flights", "Suspects", "IS NO list"],
)
def test_the_check_finds_retired_words_within_sentences_and_identifiers(line: str) -> None:
    assert list(findings("here", line))


@pytest.mark.parametrize(
    "line",
    [
        "in flight",
        "MAX_IN_FLIGHT",
        "SingleFlight",
        "in-flight limit",
        "it is no longer there",
        "there is no page",
        "recommend it",
    ],
)
def test_the_check_accepts_what_is_allowed(line: str) -> None:
    assert not list(findings("here", line))


@pytest.mark.parametrize("term", [term for term, _ in rows(TERMS)])
def test_each_term_of_the_glossary_is_used(term: str) -> None:
    words = r"[\s_-]?".join(map(re.escape, re.split(r"[ -]", term)))
    used = re.compile(rf"(?<![a-z]){words}(?![a-z])", re.IGNORECASE)
    places = {path: text for path, text in texts().items() if path.startswith(("common", "stages", "sandbox", "docs"))}
    assert any(used.search(text) for path, text in places.items() if path != "docs/glossary.md"), term


def test_the_terms_are_in_alphabetical_order_and_each_stands_once() -> None:
    for section in (TERMS, RETIRED):
        names = [name.strip("`").lower().replace("-", " ").rstrip("*") for name, _ in rows(section)]
        assert names == sorted(set(names))
