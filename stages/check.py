"""`python -m stages check`: says whether the settings, the state directory, the token endpoint and the API are usable.

Each is tried by the very edge that the service uses, so that what works here works there. One line each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from common import task_types
from common.failures.errors import Error
from common.ownership import private_directory
from common.settings.settings import PLACEHOLDER_API_KEY, Mode, Settings
from common.wire.messages import Token
from stages.fetcher.actions import Poll, PollFailed
from stages.fetcher.page import PendingPage, Reader
from stages.fetcher.upstream import Upstream
from stages.token_broker.issuer import Issuer

Check = tuple[str, Callable[[], str]]
"""What is checked, and the check: returns what it found, raises `Error` with what is wrong."""


def run(settings: Settings) -> int:
    """Print one line for each check; returns the exit status, 0 when all is usable."""
    failed = False
    for name, check in _checks(settings):
        try:
            word, found = "ok", check()
        except Error as error:
            word, found, failed = "FAILED", str(error), True
        sys.stdout.write(f"{name:<16} {word:<7} {found}\n")
        sys.stdout.flush()
    return 1 if failed else 0


def _checks(settings: Settings) -> Iterator[Check]:
    tokens: list[str] = []

    def token_endpoint() -> str:
        grant = Issuer(settings, _nobody).fetch()
        tokens.append(grant.access_token)
        lasts = "an unknown time" if grant.lifetime_s is None else f"{grant.lifetime_s:.0f} s"
        return f"{settings.token_url} gave a token for {lasts}"

    yield "settings", lambda: _settings(settings)
    yield "state directory", lambda: f"{private_directory(settings.state_dir.absolute(), 'STATE_DIR')} is ours"
    yield "token endpoint", token_endpoint
    yield "API", lambda: _api(settings, tokens)


def _settings(settings: Settings) -> str:
    if settings.mode is not Mode.MOCK:
        return f"PROCESSING_MODE is {settings.mode}"
    why = "OPENAI_API_KEY is " + PLACEHOLDER_API_KEY if settings.processing_mode is not Mode.MOCK else "PROCESSING_MODE"
    return f"MOCK vectors, which mean nothing ({why})"


def _api(settings: Settings, tokens: list[str]) -> str:
    if not tokens:
        raise Error("not tried, for want of a token")
    upstream = Upstream(settings, Reader(task_types.registered()), _nobody)
    token = Token(tokens[0], float("inf"), "")
    answer = upstream.fetch(Poll(1, 1, frozenset(), frozenset(), token))
    upstream.close()
    if isinstance(answer, PollFailed):
        raise Error(str(answer.error))
    return f"{settings.api_base_url} shows {_pending(answer)}"


def _pending(page: PendingPage) -> str:
    if not page.elements:
        return "no pending task"
    return f"pending tasks, {len(page.candidates)} of {page.elements} read for this service"


def _nobody(*_: object) -> None:
    """The edges post events to a loop; here is none."""
