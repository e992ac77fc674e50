"""The service's own errors. Every edge converts the errors of its library into one of these.

There are four kinds, because there are four reactions: try again later (`Transient`); try again after the time that
the other side named (`Throttled`); give this one item up (`Permanent`); stop, because an operator must act (`Fatal`).
"""

from __future__ import annotations


class Error(Exception):
    """The base class. Its text is one sentence, without secrets, tokens or the texts of tasks."""


class Transient(Error):
    """A failure outside that will pass: retry with back-off. No task is reported failed because of it."""


class Throttled(Transient):
    """The other side asked for a pause: retry after `delay` seconds, and send it nothing else until then."""

    def __init__(self, message: str, delay: float) -> None:
        super().__init__(message)
        self.delay = delay


class Permanent(Error):
    """The input or the request is refused; a retry would be refused too. `code` is short and stable, for programs."""

    def __init__(self, message: str, code: str = "refused") -> None:
        super().__init__(message)
        self.code = code


class Fatal(Error):
    """Only an operator can repair it (a full disk, a second copy): the process logs the text and exits with 1."""


class SettingsError(Error):
    """The settings are invalid: one line for each problem, beginning with the variable's name. Exit status 2."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
