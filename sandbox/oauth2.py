"""A stand-in for the token endpoint of Ory Hydra: it exchanges client credentials for opaque tokens.

With `client_secret_basic`, id and secret are form-encoded before base64 (RFC 6749, 2.3.1), and Hydra decodes them. A
client that is registered for one authentication method cannot use the other.
"""

import base64
import binascii
import time
from typing import ClassVar
from urllib.parse import parse_qs, unquote_plus, urlencode

import msgspec

from sandbox.access_tokens import AccessTokens
from sandbox.http import Request, Response, json_response
from sandbox.settings import OAuth2Settings
from sandbox.stand_in import StandIn

_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


def _error(status: int, code: str, description: str) -> Response:
    headers = {"WWW-Authenticate": 'Basic realm="oauth2"'} if status == 401 else None
    return json_response(status, {"error": code, "error_description": description}, headers)


def _form(request: Request) -> dict[str, str]:
    fields = parse_qs(request.body.decode("latin-1"), keep_blank_values=True)
    return {name: values[-1] for name, values in fields.items()}


class OAuth2StandIn(StandIn[OAuth2Settings]):
    """`POST /oauth2/token`, `POST /admin/oauth2/introspect`."""

    name: ClassVar[str] = "oauth2"

    def __init__(self, tokens: AccessTokens) -> None:
        super().__init__(OAuth2Settings())
        self._tokens = tokens
        self._token_requests = 0
        self._issued = 0

    def handle(self, request: Request) -> Response:
        """Call the handler of the route."""
        route = (request.method, request.path)
        if route == (b"POST", "/oauth2/token"):
            self._token_requests += 1
            return self._token(request)
        if route == (b"POST", "/admin/oauth2/introspect"):
            return self._introspect(request)
        return json_response(404, {"error": "not_found"})

    def refuse(self, request: Request, status: int) -> None:  # noqa: ARG002
        """Count the token requests that a fault answered."""
        if request.path == "/oauth2/token":
            self._token_requests += 1

    def counters(self) -> dict[str, int]:
        """Token requests, issued tokens, and tokens that are valid now."""
        return {"token_requests": self._token_requests, "issued": self._issued, "live": self._tokens.live()}

    def reset(self) -> None:
        """Reset; also revoke all tokens."""
        super().reset()
        self._tokens.revoke_all()
        self._token_requests = self._issued = 0

    def _token(self, request: Request) -> Response:
        settings, form = self.settings, _form(request)
        refusal = self._check_client(request, form) or self._check_grant(form)
        if refusal is not None:
            return refusal
        scopes = form.get("scope", "").split()
        self._issued += 1
        response: dict[str, object] = {
            "access_token": self._tokens.issue(settings.expires_in, " ".join(scopes), settings.valid_after),
            "scope": " ".join(scopes),
            "token_type": "bearer",
        }
        if not settings.omit_expires_in:
            response["expires_in"] = int(settings.expires_in)
        return _in_form(response, settings.response_form)

    def _check_client(self, request: Request, form: dict[str, str]) -> Response | None:
        """The error response if the client cannot be authenticated."""
        settings = self.settings
        if not request.headers.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded"):
            return _error(400, "invalid_request", "The request must be form-encoded.")
        method, client_id, secret = _credentials(request, form)
        if method not in settings.auth_methods:
            return _error(401, "invalid_client", f"The client is not registered for {method}.")
        if (client_id, secret) != (settings.client_id, settings.client_secret):
            return _error(401, "invalid_client", "Client authentication failed.")
        return None

    def _check_grant(self, form: dict[str, str]) -> Response | None:
        """The error response if the client asks for something that it may not have."""
        settings = self.settings
        if form.get("grant_type") != "client_credentials":
            return _error(400, "unsupported_grant_type", "Only client_credentials is supported.")
        for scope in form.get("scope", "").split():
            if scope not in settings.scopes:
                return _error(400, "invalid_scope", f"The client is not allowed to request scope '{scope}'.")
        audience = form.get("audience", "")
        if audience and settings.audiences and audience not in settings.audiences:
            return _error(400, "invalid_request", f"Requested audience '{audience}' has not been whitelisted.")
        return None

    def _introspect(self, request: Request) -> Response:
        found = self._tokens.time_left(_form(request).get("token", ""))
        if found is None:
            return json_response(200, {"active": False})
        left_s, scope = found
        client = self.settings.client_id
        expiry = int(time.time() + left_s)
        known = {"active": True, "client_id": client, "sub": client, "scope": scope, "exp": expiry}
        return json_response(200, {**known, "token_type": "Bearer", "token_use": "access_token"})


def _in_form(response: dict[str, object], form: str) -> Response:
    """The response with a token, in the form of the setting `response_form`."""
    if form == "form":
        return Response(200, urlencode(response).encode(), "application/x-www-form-urlencoded", _NO_STORE)
    content = msgspec.json.encode(response)
    if form == "json_with_mark":
        content = b"\xef\xbb\xbf" + content + b"\r\n"
    return Response(200, content, headers=_NO_STORE)


def _credentials(request: Request, form: dict[str, str]) -> tuple[str, str, str]:
    """The authentication method, the client id and the secret; empty if missing."""
    scheme, _, encoded = request.headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"basic":
        return "client_secret_post", form.get("client_id", ""), form.get("client_secret", "")
    try:
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "client_secret_basic", "", ""
    return "client_secret_basic", unquote_plus(client_id), unquote_plus(secret)
