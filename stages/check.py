"""`python -m stages check`: tests the settings, the state directory, the token endpoint, the API and the providers.

It prints one line for each, and one for each variable that is probably a misspelt setting. The checks of the token
endpoint and the API use the same edges as the service does: what works here works there. Providers are tried without
cost.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial

from common import task_types
from common.failures.errors import Error
from common.ownership import private_directory
from common.settings.settings import PLACEHOLDER_API_KEY, Mode, Settings, unknown_variables
from common.wire.messages import Token
from stages import provider_check
from stages.fetcher.actions import Poll, PollFailed
from stages.fetcher.page import PendingPage, Reader
from stages.fetcher.upstream import Upstream
from stages.token_broker.issuer import Issuer

Check = tuple[str, Callable[[], str]]
"""A name, and a function that returns what it found, or raises `Error` with what is wrong."""


def run(settings: Settings) -> int:
    """Print one line for each check; returns the exit status: 0 if everything is usable, else 1."""
    failed = False
    for name, check in _checks(settings):
        try:
            word, found = "ok", check()
        except Error as error:
            word, found, failed = "FAILED", str(error), True
        sys.stdout.write(f"{name:<16} {word:<7} {found}\n")
        sys.stdout.flush()
    for sentence in unknown_variables():
        sys.stdout.write(f"{'settings':<16} {'WARNING':<7} {sentence}\n")
    return 1 if failed else 0


def _checks(settings: Settings) -> Iterator[Check]:
    tokens: list[str] = []

    def token_endpoint() -> str:
        grant = Issuer(settings, _ignore).fetch()
        tokens.append(grant.access_token)
        lasts = "an unknown time" if grant.lifetime_s is None else f"{grant.lifetime_s:.0f} s"
        return f"{settings.token_url} gave a token that lasts {lasts}"

    yield "settings", lambda: _settings(settings)
    yield "state directory", lambda: f"{private_directory(settings.state_dir.absolute(), 'STATE_DIR')} can be used"
    yield "token endpoint", token_endpoint
    yield "API", lambda: _api(settings, tokens)
    for name, check in provider_check.CHECKS[settings.mode].items():
        yield name, partial(check, settings)


def _settings(settings: Settings) -> str:
    if settings.mode is not Mode.MOCK:
        return f"PROCESSING_MODE is {settings.mode}"
    why = "OPENAI_API_KEY is " + PLACEHOLDER_API_KEY if settings.processing_mode is not Mode.MOCK else "PROCESSING_MODE"
    return f"MOCK vectors, which mean nothing ({why})"


def _api(settings: Settings, tokens: list[str]) -> str:
    if not tokens:
        raise Error("not tried: the token endpoint gave no token")
    upstream = Upstream(
        settings, Reader(task_types.registered(default_model=settings.default_embedding_model)), _ignore
    )
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


def _ignore(*_: object) -> None:
    """Stands in for the loop, to which an edge posts its events: this command has none."""
