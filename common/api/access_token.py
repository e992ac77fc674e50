"""The access token of one process: requested from the token broker, sent to the API, replaced when the API refuses it.

A refusal does not prove that the token is dead: the API may refuse one request, or its own check of tokens may have
failed for a moment. So the token is used further, and another one is requested meanwhile, at most every
`REPLACE_INTERVAL_S`. Only `dead_after` refusals in a row, without a request in between that was served, show that it is
dead: then it is not used any more.

A new token may not be valid yet, if the clock of the token endpoint is ahead of the API's. If its first use is refused,
the token before it is used further, as long as it lasts, and the new one is tried again every `UNTRIED_INTERVAL_S`.

A dead token that has worked is replaced at once. If its replacement is refused too, the fault is elsewhere: the API's
check of tokens is down, or its clock is behind, so that the new token is not valid yet. So this one is kept, and tried
again after growing pauses; it is replaced after `KEPT_TRIES` of them, or after `KEPT_S`. If another process reaches the
API meanwhile, it is tried again sooner.
"""

from __future__ import annotations

from collections.abc import Iterator

from common.failures.cooldown import Cooldown
from common.failures.retry import Backoff
from common.process.actions import Instant, Send
from common.wire.messages import Token, TokenRequest
from common.wire.timing import TOKEN_REQUEST_INTERVAL_S

REPLACE_INTERVAL_S = 10.0
"""A token that some requests are served with is replaced at most this often."""
UNTRIED_INTERVAL_S = 2.0
"""How long the token before is used, before a new one that was refused is tried again."""
KEPT_TRIES = 4
"""A token that came as a replacement is replaced itself after this many refusals, with a pause after each."""
KEPT_S = 120.0
"""After this time it is replaced in any case: what the token may do was perhaps changed."""
EARLY_INTERVAL_S = 5.0
"""A dead token is tried again before the end of its pause at most this often."""
REFUSED = "the API refused the access token (401 or 403)"


class AccessToken:
    """The process's copy of the token, and when it may be used."""

    def __init__(self, inbox: str, dead_after: int = 1) -> None:
        self._inbox = inbox
        self._dead_after = dead_after
        self._token: Token | None = None
        self._has_worked = False
        """Whether a request was served with it."""
        self._before: Token | None = None
        """The token before it, which had worked until it was renewed."""
        self._untried: Token | None = None
        """The token after it, which was refused when it was first used."""
        self._untried_from = 0.0
        """When to try that one again (monotonic)."""
        self._refused = ""
        """Fingerprint of the token that was found dead last."""
        self._unserved = 0
        """Refusals of the token since a request was served with it."""
        self._deaths = 0
        """How often in a row a token was found dead."""
        self._tries = 0
        """How often this token was found dead."""
        self._dead_since = float("inf")
        """Since when (monotonic)."""
        self._is_replacing = False
        """Whether the broker is to replace the token."""
        self._cooldown = Cooldown()
        """No token is used before its end (monotonic)."""
        self._is_early = False
        """Whether the pause of the dead token was ended early."""
        self._early_from = 0.0
        """When it may be ended early again (monotonic)."""
        self._requested_at = float("-inf")
        self._replaced_at = float("-inf")
        self._backoff = Backoff(1.0, 2.0, 60.0)

    def take(self, token: Token) -> None:
        """Use the token that the broker has sent."""
        if not self.is_current(token.fingerprint):
            self._before = self._token if self._has_worked and not self._deaths else None
            self._untried, self._has_worked = None, False
            self._unserved = self._tries = 0
            self._dead_since = float("inf")
            self._is_replacing = False
            if self._deaths == 1:
                self._cooldown = Cooldown()
        self._token = token

    def is_current(self, fingerprint: str) -> bool:
        """Whether this is the fingerprint of the token in use."""
        return self._token is not None and self._token.fingerprint == fingerprint

    @property
    def has_worked(self) -> bool:
        """Whether a request was served with the token in use."""
        return self._has_worked

    @property
    def is_replaced(self) -> bool:
        """Whether another token was requested instead of the one in use, and has not come yet."""
        return self._is_replacing

    def usable(self, now: Instant) -> Token | None:
        """The token, if it may be used now."""
        token = self._token
        if token and self._untried and (now.mono >= self._untried_from or token.expires_at <= now.wall):
            self._before, self._token, self._untried, self._has_worked = token, self._untried, None, False
            token = self._token
        if token is None or token.expires_at <= now.wall or not self._cooldown.is_over(now.mono):
            return None
        return token

    def worked(self, fingerprint: str = "") -> None:
        """Note that a request was served with the token; without a fingerprint, with the one in use."""
        if not fingerprint or self.is_current(fingerprint):
            self._has_worked, self._before = True, None
            self._unserved = self._deaths = self._tries = 0
            self._dead_since = float("inf")
            self._is_replacing = False
            self._cooldown = Cooldown()

    def reachable(self, now: Instant) -> None:
        """Note that another process reached the API: a dead token may be tried again before its pause is over."""
        if self._deaths > 1 and now.mono >= self._early_from and not self._cooldown.is_over(now.mono):
            self._early_from = now.mono + EARLY_INTERVAL_S
            self._is_early = True
            self._cooldown = Cooldown()

    def refused(self, fingerprint: str, now: Instant) -> Iterator[Send]:
        """Note that the API refused a request with a token. Several requests may report the same refusal."""
        if not self.is_current(fingerprint) or not self._cooldown.is_over(now.mono):
            return
        if not self._has_worked and self._before and self._before.expires_at > now.wall:
            self._untried, self._untried_from = self._token, now.mono + UNTRIED_INTERVAL_S
            self._token, self._before, self._has_worked = self._before, None, True
            return
        self._unserved += 1
        if self._unserved < self._dead_after:
            if not self._deaths and now.mono - self._replaced_at >= REPLACE_INTERVAL_S:
                self._replaced_at = self._requested_at = now.mono
                self._is_replacing = True
                yield Send("token_broker", TokenRequest(self._inbox, fingerprint, self._has_worked))
            return
        self._unserved = 0
        self._refused = fingerprint
        self._deaths += 1
        self._tries += not self._is_early
        self._is_early = False
        self._dead_since = min(self._dead_since, now.mono)
        is_kept_long = self._tries >= KEPT_TRIES or now.mono - self._dead_since >= KEPT_S
        self._cooldown = Cooldown(now.mono + self._backoff.delay(self._deaths), REFUSED)
        if not self._is_replacing and (self._deaths == 1 or is_kept_long):
            self._is_replacing = True
            self._requested_at = float("-inf")
        yield from self.ask(now)

    def ask(self, now: Instant) -> Iterator[Send]:
        """Request a token from the broker, if there is no usable one and none was requested just now."""
        is_kept = self._token is not None and self._token.expires_at > now.wall and not self._is_replacing
        if self.usable(now) is None and not is_kept and now.mono - self._requested_at >= TOKEN_REQUEST_INTERVAL_S:
            self._requested_at = now.mono
            refused = self._refused if self._is_replacing else ""
            yield Send("token_broker", TokenRequest(self._inbox, refused, bool(refused) and self._has_worked))

    def problem(self, now: Instant) -> str:
        """Why there is no usable token; empty if there is one."""
        if self.usable(now) is not None:
            return ""
        return REFUSED if self._deaths else "no access token yet"
