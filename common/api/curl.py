"""libcurl, set up for requests to the API: time limits, certificates, proxy, HTTP/2, and error texts for its failures.

REQUEST_TIMEOUT limits the whole request, from the name look-up to the last byte, even if bytes keep arriving. If the
server closes a kept-alive connection just as a request is sent on it, that is not an outage: if no byte of a response
has come, the request is sent once more on a new connection (`was_stale`). libcurl does the same, but only for some of
these failures: measured, one in ten remains. GET and PATCH may both be repeated.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

import pycurl

from common import USER_AGENT
from common.api import tls_and_proxy
from common.failures.retry import retry_after
from common.settings.settings import Settings

IDLE_S = 4
"""A connection that was idle for longer is not used again. NestJS closes idle connections after 5 s."""

E_PROXY = 97
E_HTTP2_STREAM = 92
"""libcurl's error numbers that pycurl has no name for (curl/curl.h)."""

BROKE = "the connection broke before the response was complete"
NOT_HTTP = "the server did not answer with HTTP"
_TEXTS = {
    pycurl.E_COULDNT_RESOLVE_HOST: "the host name cannot be resolved: check API_BASE_URL and DNS",
    pycurl.E_COULDNT_RESOLVE_PROXY: "the proxy's host name cannot be resolved: check HTTP_PROXY and HTTPS_PROXY",
    pycurl.E_COULDNT_CONNECT: "the connection failed: check that the API is running at API_BASE_URL",
    E_PROXY: "the proxy refused the connection: check HTTP_PROXY, HTTPS_PROXY and NO_PROXY",
    pycurl.E_PEER_FAILED_VERIFICATION: "its TLS certificate is not trusted: set SSL_CERT_FILE to its authority",
    pycurl.E_SSL_CACERT_BADFILE: "the file of trusted certificates cannot be read: check SSL_CERT_FILE",
    pycurl.E_SSL_CONNECT_ERROR: "TLS handshake failed: should API_BASE_URL be http://?",
    pycurl.E_GOT_NOTHING: BROKE,
    pycurl.E_PARTIAL_FILE: BROKE,
    pycurl.E_RECV_ERROR: BROKE,
    pycurl.E_SEND_ERROR: BROKE,
    pycurl.E_HTTP2: BROKE,
    E_HTTP2_STREAM: BROKE,
    pycurl.E_UNSUPPORTED_PROTOCOL: NOT_HTTP,
    pycurl.E_FTP_WEIRD_SERVER_REPLY: NOT_HTTP,
    pycurl.E_BAD_CONTENT_ENCODING: "the response cannot be decompressed",
}
END_OF_HEAD = frozenset({b"\r\n", b"\n"})
"""The empty line that ends the head of a response."""
_CLOSED = frozenset({pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR, pycurl.E_GOT_NOTHING, pycurl.E_HTTP2, E_HTTP2_STREAM})
"""The errors of a request on a connection that the server has closed."""


def new_handle(settings: Settings) -> pycurl.Curl:
    """Make a handle for requests to the API. The caller sets the method, URL, headers and receiver of the response."""
    handle = pycurl.Curl()
    milliseconds = int(settings.request_timeout * 1000)
    handle.setopt(pycurl.TIMEOUT_MS, milliseconds)
    handle.setopt(pycurl.CONNECTTIMEOUT_MS, milliseconds)
    handle.setopt(pycurl.NOSIGNAL, 1)
    handle.setopt(pycurl.MAXAGE_CONN, IDLE_S)
    handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)  # HTTP/2 where TLS negotiates it
    handle.setopt(pycurl.CAINFO, tls_and_proxy.ca_file())
    handle.setopt(pycurl.PROXY_CAINFO, tls_and_proxy.ca_file())
    if proxy := tls_and_proxy.proxy_for(settings.api_base_url):
        handle.setopt(pycurl.PROXY, proxy)
    return handle


def request_headers(access_token: str, *more: str) -> list[str]:
    """The headers of every request, and `more`."""
    return [f"Authorization: Bearer {access_token}", "Accept: application/json", f"User-Agent: {USER_AGENT}", *more]


def failure_text(handle: pycurl.Curl, code: int, timeout_s: float) -> str:
    """Why a request failed. The text is the same at each try: it has no addresses or times."""
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return f"no complete response within REQUEST_TIMEOUT ({timeout_s:g} s)"
    if handle.getinfo(pycurl.HTTP_CONNECTCODE) >= 300:
        code = E_PROXY
    return _TEXTS.get(code, f"the request failed (libcurl's error {code})")


def was_stale(handle: pycurl.Curl, code: int, lines: Sequence[bytes]) -> bool:
    """Whether a request failed because its connection, kept from an earlier request, had been closed by the server."""
    return code in _CLOSED and not lines and handle.getinfo(pycurl.NUM_CONNECTS) == 0


def status(lines: Sequence[bytes]) -> int:
    """The status of a response with a complete HTTP head, from its header lines; otherwise 0.

    libcurl's own number is too lenient where 200 settles a task. libcurl also accepts a head that ends with the
    connection, and takes `HTTP/1.1 0 ` or `HTTP!` for 200, as from a very old server.
    """
    whole = False
    for line in reversed(lines):  # trailers may follow the head, interim responses may precede it
        if line[:5] != b"HTTP/":
            whole = whole or line in END_OF_HEAD
        else:
            words = line.split(None, 2)
            number = words[1] if whole and len(words) > 1 else b""
            return int(number) if len(number) == 3 and number.isdigit() and number >= b"200" else 0
    return 0


def headers(lines: Iterable[bytes]) -> Mapping[str, str]:
    """The headers of a response, from the lines that HEADERFUNCTION was given; names in lower case.

    The headers of interim responses (100, 103) and of a proxy come first, and are dropped.
    """
    found: dict[str, str] = {}
    for line in lines:
        if line.startswith(b"HTTP/"):
            found.clear()
        name, _, value = line.decode("latin-1").partition(":")
        found[name.strip().lower()] = value.strip()
    return found


def retry_after_s(lines: Iterable[bytes]) -> float | None:
    """The seconds that a response asks the client to wait; None if it does not ask."""
    return retry_after(headers(lines), time.time())
