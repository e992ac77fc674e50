"""The access tokens in circulation: issued by oauth2.py, checked by api.py."""

import secrets
import time


class TokenStore:
    """Opaque random tokens, by the whole `Authorization` header that carries them."""

    def __init__(self) -> None:
        self._expiries: dict[bytes, float] = {}
        self._scopes: dict[bytes, str] = {}

    def issue(self, lifetime: float, scope: str) -> str:
        """A new token that is good for `lifetime` seconds."""
        token = f"ory_at_{secrets.token_urlsafe(32)}"
        header = b"Bearer " + token.encode()
        self._expiries[header] = time.monotonic() + lifetime
        self._scopes[header] = scope
        return token

    def admits(self, authorization: bytes | None) -> bool:
        """Whether a request with this header may come in."""
        if authorization is None:
            return False
        expiry = self._expiries.get(authorization)
        if expiry is None and authorization[:7].lower() == b"bearer ":  # the scheme's case does not matter (RFC 9110)
            expiry = self._expiries.get(b"Bearer " + authorization[7:].strip())
        return expiry is not None and time.monotonic() < expiry

    def remaining(self, token: str) -> tuple[float, str] | None:
        """Seconds that the token is still good for, and its scope; None for one that is not."""
        header = b"Bearer " + token.encode()
        left = self._expiries.get(header, 0.0) - time.monotonic()
        return (left, self._scopes[header]) if left > 0 else None

    def revoke_all(self) -> int:
        """No token is good any more; tells how many there were."""
        live = self.live()
        self._expiries.clear()
        self._scopes.clear()
        return live

    def live(self) -> int:
        """How many tokens are good now."""
        now = time.monotonic()
        return sum(expiry > now for expiry in self._expiries.values())
