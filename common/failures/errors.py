"""The project's own errors: every edge turns what its library raises into one of these.

Four kinds, because there are four answers: try again later, try again after the time that the other side named, give
this one thing up, stop and let a person mend it.
"""

from __future__ import annotations


class Error(Exception):
    """Base of the errors below; its text is one sentence without secrets, tokens or task texts."""


class Transient(Error):
    """The outside failed in a way that passes: retry with back-off. No task is ever failed for it."""


class Throttled(Transient):
    """The outside asked for patience: retry after `delay` seconds, and send nothing else there meanwhile."""

    def __init__(self, message: str, delay: float) -> None:
        super().__init__(message)
        self.delay = delay


class Permanent(Error):
    """No retry mends it: the input (or the request) is refused. `code` is short and stable, for machines."""

    def __init__(self, message: str, code: str = "refused") -> None:
        super().__init__(message)
        self.code = code


class Fatal(Error):
    """Only a person can mend it (a full disk, a second copy): the stage says this sentence and exits with status 1."""


class SettingsError(Error):
    """The settings are unusable: one line for each problem, by variable name; exit status 2."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
