"""The access token of one process: requested from the token broker, sent to the API, replaced when the API refuses it.

A refused token is replaced at once, but only the first time in a row. If the API refuses every token, each new one is
used only after a growing pause. The token endpoint may also return the very token that was refused. It is tried again
after such a pause, because the API's own check of tokens may have failed for a moment.
"""

from __future__ import annotations

from collections.abc import Iterator

from common.failures.cooldown import Cooldown
from common.failures.retry import Backoff
from common.process.actions import Instant, Send
from common.wire.messages import Token, TokenRequest
from common.wire.timing import TOKEN_REQUEST_INTERVAL_S

REFUSED = "the API refused the access token (401 or 403)"


class AccessToken:
    """The process's copy of the token, and when it may be used."""

    def __init__(self, inbox: str) -> None:
        self._inbox = inbox
        self._token: Token | None = None
        self._refused = ""
        """Fingerprint of the token that was refused last."""
        self._refusals = 0
        """Number of refusals in a row. A refusal counts once for each token, and once more after each pause."""
        self._cooldown = Cooldown()
        """No token is used before its end (monotonic)."""
        self._requested_at = float("-inf")
        self._backoff = Backoff(1.0, 2.0, 60.0)

    def take(self, token: Token) -> None:
        """Use the token that the broker has sent."""
        if self._refusals == 1 and token.fingerprint != self._refused:
            self._cooldown = Cooldown()
        self._token = token

    def usable(self, now: Instant) -> Token | None:
        """The token, if it may be used now."""
        token = self._token
        if token is None or token.expires_at <= now.wall or not self._cooldown.is_over(now.mono):
            return None
        return token

    def worked(self) -> None:
        """Note that the API accepted the token."""
        self._refusals = 0

    def refused(self, fingerprint: str, now: Instant) -> Iterator[Send]:
        """Note that the API refused a token, and request another. Several requests may report the same refusal."""
        if self._token is None or self._token.fingerprint != fingerprint or not self._cooldown.is_over(now.mono):
            return
        self._refused = fingerprint
        self._refusals += 1
        self._cooldown = Cooldown(now.mono + self._backoff.delay(self._refusals), REFUSED)
        self._requested_at = float("-inf")
        yield from self.ask(now)

    def ask(self, now: Instant) -> Iterator[Send]:
        """Request a token from the broker, if there is no usable one and none was requested just now."""
        if self.usable(now) is None and now.mono - self._requested_at >= TOKEN_REQUEST_INTERVAL_S:
            self._requested_at = now.mono
            refused = self._token is not None and self._token.fingerprint == self._refused and self._refusals > 0
            yield Send("token_broker", TokenRequest(self._inbox, self._refused if refused else ""))

    def problem(self, now: Instant) -> str:
        """Why there is no usable token; empty if there is one."""
        if self.usable(now) is not None:
            return ""
        return REFUSED if self._refusals else "no access token yet"
