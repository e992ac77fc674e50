"""The access token as those keep it who show it to the API: asked of the token broker, replaced when it is refused.

A refused token is replaced by another at once, but only the first time in a row: an API that refuses every token gets
them with growing pauses. A token endpoint may also hand out the very token that was refused; it is tried again after
such a pause, since a refusal can be a hiccup of the API's own check.
"""

from __future__ import annotations

from collections.abc import Iterator

from common.failures.retry import Backoff
from common.process.actions import Instant, Send
from common.wire.messages import Token, TokenRequest
from common.wire.timing import TOKEN_REQUEST_INTERVAL_S


class AccessToken:
    """One process's copy of the token."""

    def __init__(self, inbox: str) -> None:
        self._inbox = inbox
        self._token: Token | None = None
        self._refused = ""
        """Fingerprint of the token that was refused last."""
        self._refusals = 0
        """In a row, each of another token or after a pause."""
        self._not_before = 0.0
        self._asked = float("-inf")
        self._backoff = Backoff(1.0, 2.0, 60.0)

    def take(self, token: Token) -> None:
        """Use what the broker sent."""
        if self._refusals == 1 and token.fingerprint != self._refused:
            self._not_before = 0.0
        self._token = token

    def usable(self, now: Instant) -> Token | None:
        """The token, if it may be shown now."""
        token = self._token
        if token is None or token.expires_at <= now.wall or now.mono < self._not_before:
            return None
        return token

    def worked(self) -> None:
        """Tell that the API took the token."""
        self._refusals = 0

    def refused(self, fingerprint: str, now: Instant) -> Iterator[Send]:
        """Tell that the API refused a token; many requests may say so of the same one."""
        if self._token is None or self._token.fingerprint != fingerprint or now.mono < self._not_before:
            return
        self._refused = fingerprint
        self._refusals += 1
        self._not_before = now.mono + self._backoff.delay(self._refusals)
        self._asked = float("-inf")
        yield from self.ask(now)

    def ask(self, now: Instant) -> Iterator[Send]:
        """Ask the broker, if there is no usable token and it was not asked just now."""
        if self.usable(now) is None and now.mono - self._asked >= TOKEN_REQUEST_INTERVAL_S:
            self._asked = now.mono
            refused = self._token is not None and self._token.fingerprint == self._refused and self._refusals > 0
            yield Send("token_broker", TokenRequest(self._inbox, self._refused if refused else ""))

    def problem(self, now: Instant) -> str:
        """Why there is no usable token, in words; empty if there is one."""
        if self.usable(now) is not None:
            return ""
        if self._refusals:
            return "the API refused the access token (401 or 403)"
        return "no access token yet"
