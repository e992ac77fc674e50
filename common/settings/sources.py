"""Where the settings come from: the environment, then `.env`; in both, `X_FILE=path` may replace `X=value`.

`X_FILE` is for the secrets of containers. An empty value counts as not set, unless the setting may be empty.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

LARGEST_FILE_BYTES = 65_536
"""A file contains one value."""
MAY_BE_EMPTY = frozenset({"default_embedding_model"})
"""Settings that `X=` sets to the empty value."""


class UnreadableValue(NamedTuple):
    """Takes the place of a value that cannot be read from its file; it becomes a problem."""

    variable: str
    """The variable to name in the report."""
    why: str
    """What is wrong, and the remedy."""


def variables_of_file(env_file: str | Path | None) -> dict[str, str]:
    """The variables in `.env`, or none if there is no such file."""
    if env_file is None or not Path(env_file).expanduser().is_file():
        return {}
    from dotenv import dotenv_values  # noqa: PLC0415  1 MiB that a container, which has no such file, saves

    found = dotenv_values(Path(env_file).expanduser(), encoding="utf-8")
    return {name: value for name, value in found.items() if value is not None}


def given_values(names: Iterable[str], env_file: str | Path | None) -> dict[str, str | UnreadableValue]:
    """What is given for each of the settings, by its name in lower case."""
    of_file = variables_of_file(env_file)
    environment, file = ({name.lower(): value for name, value in all_.items()} for all_ in (os.environ, of_file))
    found: dict[str, str | UnreadableValue] = {}
    for name in names:
        for source in (environment, file):
            value = _given(source, name)
            if value is not None:
                found[name] = value
                break
    return found


def _given(source: Mapping[str, str], name: str) -> str | UnreadableValue | None:
    """What one source gives for a setting; None if nothing."""
    value, path, variable = source.get(name), source.get(f"{name}_file"), name.upper()
    if path:
        if value:
            return UnreadableValue(variable, f"{variable}_FILE is set too; set only one of them")
        return _content(variable, path)
    return value if value or name in MAY_BE_EMPTY else None


def _content(variable: str, path: str) -> str | UnreadableValue:
    """The content of the file, without the newline at its end."""

    def unreadable(why: str) -> UnreadableValue:
        return UnreadableValue(f"{variable}_FILE", f"{path} {why}; put the value there, or set {variable} instead")

    try:
        with Path(path).open("rb") as file:
            raw = file.read(LARGEST_FILE_BYTES + 1)
        value = raw.decode().rstrip("\r\n")
    except OSError as error:
        return unreadable(f"cannot be read: {error.strerror}")
    except ValueError:  # not UTF-8, or an invalid path
        return unreadable("does not contain UTF-8 text")
    if not value:
        return unreadable("is empty")
    return value if len(raw) <= LARGEST_FILE_BYTES else unreadable(f"is larger than {LARGEST_FILE_BYTES} bytes")
