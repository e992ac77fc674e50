"""The edge to the token endpoint: one client-credentials request (RFC 6749, 4.4) on its own thread.

requests-oauthlib makes the request. `_Session` restricts it to what suits a service that holds a secret.
"""

from __future__ import annotations

import io
import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus, urlsplit

import msgspec
import requests
import urllib3.exceptions
from oauthlib.oauth2 import BackendApplicationClient
from requests_oauthlib import OAuth2Session

from common import USER_AGENT
from common.api import tls_and_proxy
from common.failures.errors import Permanent, SettingsError, Transient
from common.process import metrics
from common.settings.settings import AuthMethod, Settings, read
from stages.token_broker import token_response
from stages.token_broker.actions import RequestToken, TokenIssued, TokenRequestFailed
from stages.token_broker.token_response import Grant

LARGEST_RESPONSE_BYTES = 2**18
"""A token with all its claims is a few kB."""
_PLACEHOLDER_URL = "https://token-endpoint.invalid/"
"""Given to `fetch_token`, which refuses http:// unless a global variable is set; `_Session` uses the real address."""


class _Session(OAuth2Session):
    """Sends requests to one address only, follows no redirect, and reads a response of bounded size in bounded time.

    oauthlib sees only responses that `token_response.read` has accepted: it puts parts of others into its errors.
    """

    def __init__(self, client_id: str, url: str, timeout_s: float) -> None:
        super().__init__(client=BackendApplicationClient(client_id))
        self.headers["User-Agent"] = USER_AGENT
        self._url = url
        self._timeout_s = timeout_s

    def request(self, method: str, url: str, **kwargs: Any) -> requests.Response:  # type: ignore[override]  # noqa: ARG002
        """Send the request, check its response, and give oauthlib only the fields that it needs."""
        deadline = time.monotonic() + self._timeout_s
        kwargs |= {"timeout": self._timeout_s, "allow_redirects": False, "stream": True}
        kwargs["verify"] = tls_and_proxy.ca_file()
        with requests.Session.request(self, method, self._url, **kwargs) as response:
            body = _bounded_body(response, deadline)
        try:
            grant = token_response.read(response.status_code, response.headers, body, time.time())
        except Transient:
            status = response.status_code
            metrics.TOKEN_REQUESTS.labels(f"http_{status}" if status >= 300 else "invalid_answer").inc()
            raise
        response.raw = io.BytesIO(msgspec.json.encode({"token_type": "bearer", **_fields(grant)}))
        response.encoding = "utf-8"
        return response


class Issuer:
    """Performs `RequestToken`: one request, whose outcome is posted to the loop."""

    def __init__(
        self, settings: Settings, post: Callable[[object], None], reread: Callable[[], Settings] = read
    ) -> None:
        self._settings = settings
        self._credentials = (settings.oauth2_client_id, settings.oauth2_client_secret)
        self._post = post
        self._reread = reread
        for library in ("requests_oauthlib", "oauthlib"):
            logging.getLogger(library).setLevel(logging.WARNING)  # below that they log the secret and the token

    def start_request(self, action: RequestToken) -> None:
        """Start the request."""
        threading.Thread(target=self._run, args=(action.number,), name="token-request", daemon=True).start()

    def fetch(self) -> Grant:
        """Get a token; raise `Transient`, `Throttled` or `Permanent`.

        When the client is refused, its id and secret are read again, as they may have been rotated in their files.
        """
        try:
            return self._request()
        except Permanent as error:
            if error.code != "invalid_client" or not self._read_rotated_credentials():
                raise
        return self._request()

    def _run(self, number: int) -> None:
        bug = Transient("the token request failed with an error of this program: see the traceback on standard error")
        outcome: TokenIssued | TokenRequestFailed = TokenRequestFailed(number, bug)
        try:
            grant = self.fetch()
            outcome = TokenIssued(number, grant.access_token, grant.lifetime_s)
        except (Transient, Permanent) as error:
            outcome = TokenRequestFailed(number, error)
        finally:
            self._post(outcome)

    def _read_rotated_credentials(self) -> bool:
        """Read the client id and secret again; returns whether they have changed."""
        try:
            settings = self._reread()
        except SettingsError:
            return False  # the file is being replaced now; the next request reads it again
        before, self._credentials = self._credentials, (settings.oauth2_client_id, settings.oauth2_client_secret)
        return before != self._credentials

    def _request(self) -> Grant:
        settings = self._settings
        try:
            _refuse_public_http(settings.token_url)
            client_id = self._credentials[0]
            with _Session(client_id, settings.token_url, settings.request_timeout) as session:
                token = session.fetch_token(
                    _PLACEHOLDER_URL,
                    scope=settings.oauth2_scope,
                    audience=settings.oauth2_audience,
                    **self._authentication(),
                )
        except (OSError, urllib3.exceptions.HTTPError) as error:  # requests' own errors are `OSError`s
            status, message = _failure(error, settings)
            metrics.TOKEN_REQUESTS.labels(status).inc()
            raise Transient(message) from None  # `error` contains the request, which contains the secret
        except Permanent as error:
            metrics.TOKEN_REQUESTS.labels(error.code).inc()
            raise
        metrics.TOKEN_REQUESTS.labels("success").inc()
        return Grant(token["access_token"], token.get("expires_in"))

    def _authentication(self) -> dict[str, Any]:
        """How the client authenticates, for `fetch_token`; an `auth` also keeps requests from using `~/.netrc`."""
        client_id, secret = self._credentials[0], self._credentials[1].get_secret_value()
        if self._settings.oauth2_auth_method is AuthMethod.POST:
            return {"auth": lambda request: request, "include_client_id": True, "client_secret": secret}
        # form-encoded before base64 (RFC 6749, 2.3.1), which requests leaves to its caller
        return {"auth": requests.auth.HTTPBasicAuth(quote_plus(client_id), quote_plus(secret))}


def _fields(grant: Grant) -> dict[str, object]:
    """The grant for oauthlib, which accepts only whole seconds and treats 0 as missing."""
    if grant.lifetime_s is None:
        return {"access_token": grant.access_token}
    return {"access_token": grant.access_token, "expires_in": max(1, int(grant.lifetime_s))}


def _bounded_body(response: requests.Response, deadline: float) -> bytes:
    """Read the body; raises if it is too large or takes too long. The timeout of requests restarts with every byte."""
    body = bytearray()
    while chunk := response.raw.read1(LARGEST_RESPONSE_BYTES, decode_content=True):
        body += chunk
        if len(body) > LARGEST_RESPONSE_BYTES:
            raise requests.exceptions.ContentDecodingError
        if time.monotonic() > deadline:
            raise requests.exceptions.ReadTimeout
    return bytes(body)


def _refuse_public_http(url: str) -> None:
    """Raise `Permanent` if the secret would cross a public network unencrypted."""
    parts = urlsplit(url)
    if parts.scheme != "http":
        return
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return  # either requests reports it, or a proxy resolves the name
    if any(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global for *_, address in found):
        message = "OAUTH2_TOKEN_URL is http:// at a public address, where others can read the secret"
        raise Permanent(f"{message}: use https://", "insecure_url")


def _failure(error: Exception, settings: Settings) -> tuple[str, str]:
    """The status for the metric, and a text, for a request without a complete response."""
    where = urlsplit(settings.token_url).hostname
    if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
        return "tls_error", "the certificates to trust cannot be read: check SSL_CERT_FILE"
    if isinstance(error, requests.exceptions.SSLError):
        why = "cannot be trusted: its TLS certificate is not valid here; set SSL_CERT_FILE for a private authority"
        return "tls_error", f"the token endpoint {where} {why}"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        why = f"did not answer within {settings.request_timeout:g} s (REQUEST_TIMEOUT)"
        return "timeout", f"the token endpoint {where} {why}"
    if isinstance(error, requests.exceptions.ContentDecodingError | urllib3.exceptions.DecodeError):
        return "invalid_answer", f"the token endpoint {where} sent a response that cannot be read or is too large"
    if isinstance(error, requests.exceptions.ProxyError):
        return "connection_error", "the proxy to the token endpoint cannot be used: check HTTPS_PROXY and NO_PROXY"
    return "connection_error", f"the token endpoint {where} cannot be reached: {_cause(error)}"


def _cause(error: BaseException) -> str:
    """The operating system's text for the error, which has no addresses or headers."""
    link: BaseException | None = error
    while link:
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
        link = link.__cause__ or link.__context__
    return "the connection broke"
