"""The OAuth2 access tokens: oauth2.py issues them, api.py checks them."""

import secrets
import time


class AccessTokens:
    """Opaque random tokens, by the complete `Authorization` header that carries them."""

    def __init__(self) -> None:
        self._expiries: dict[bytes, float] = {}
        self._starts: dict[bytes, float] = {}
        """When a token becomes valid, for those that are not valid at once."""
        self._scopes: dict[bytes, str] = {}

    def issue(self, lifetime_s: float, scope: str, valid_after_s: float = 0.0) -> str:
        """A new token, valid for `lifetime_s` seconds, but not for the first `valid_after_s` of them."""
        token = f"ory_at_{secrets.token_urlsafe(32)}"
        header = b"Bearer " + token.encode()
        self._expiries[header] = time.monotonic() + lifetime_s
        self._scopes[header] = scope
        if valid_after_s:
            self._starts[header] = time.monotonic() + valid_after_s
        return token

    def is_valid(self, authorization: bytes | None) -> bool:
        """Whether this `Authorization` header carries a valid token."""
        if authorization is None:
            return False
        expiry = self._expiries.get(authorization)
        if expiry is None and authorization[:7].lower() == b"bearer ":  # the scheme's case does not matter (RFC 9110)
            expiry = self._expiries.get(b"Bearer " + authorization[7:].strip())
        if self._starts and time.monotonic() < self._starts.get(authorization, 0.0):
            return False
        return expiry is not None and time.monotonic() < expiry

    def time_left(self, token: str) -> tuple[float, str] | None:
        """Seconds until the token expires, and its scope; None if it is not valid."""
        header = b"Bearer " + token.encode()
        left_s = self._expiries.get(header, 0.0) - time.monotonic()
        return (left_s, self._scopes[header]) if left_s > 0 else None

    def revoke_all(self) -> int:
        """Revoke all tokens; returns how many were valid."""
        live = self.live()
        self._expiries.clear()
        self._starts.clear()
        self._scopes.clear()
        return live

    def live(self) -> int:
        """How many tokens are valid now."""
        now = time.monotonic()
        return sum(expiry > now for expiry in self._expiries.values())
