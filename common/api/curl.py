"""libcurl as all requests to the API use it: time limits, certificates, proxy, HTTP/2, and its failures in our words.

A request has REQUEST_TIMEOUT for the whole of it, from the name look-up to the last byte, however steadily it drips. A
kept-alive connection that the server closes in the same moment is no outage: the request is sent again on a new one,
once, if no byte of an answer has come (`was_stale`; libcurl itself does so for some of these failures only: measured,
one in ten is left over). Both of our requests may be repeated.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

import pycurl

from common.api import tls_and_proxy
from common.failures.retry import retry_after
from common.settings.settings import Settings

IDLE_SECONDS = 4
"""A connection idle for longer is not used again: NestJS closes its own after 5 s."""

E_PROXY = 97
E_HTTP2_STREAM = 92
"""libcurl's numbers for what pycurl has no name for (curl/curl.h)."""

BROKE = "the connection broke before the answer was whole"
_WORDS = {
    pycurl.E_COULDNT_RESOLVE_HOST: "its host name cannot be resolved: check API_BASE_URL and DNS",
    pycurl.E_COULDNT_RESOLVE_PROXY: "the proxy's host name cannot be resolved: check HTTP_PROXY and HTTPS_PROXY",
    pycurl.E_COULDNT_CONNECT: "it cannot be connected to",
    E_PROXY: "the proxy refuses the connection: check HTTP_PROXY, HTTPS_PROXY and NO_PROXY",
    pycurl.E_PEER_FAILED_VERIFICATION: "its TLS certificate is not trusted: set SSL_CERT_FILE to its authority",
    pycurl.E_SSL_CACERT_BADFILE: "the certificates to trust cannot be read: check SSL_CERT_FILE",
    pycurl.E_SSL_CONNECT_ERROR: "TLS cannot be agreed on with it: is API_BASE_URL https:// rightly?",
    pycurl.E_GOT_NOTHING: BROKE,
    pycurl.E_PARTIAL_FILE: BROKE,
    pycurl.E_RECV_ERROR: BROKE,
    pycurl.E_SEND_ERROR: BROKE,
    pycurl.E_HTTP2: BROKE,
    E_HTTP2_STREAM: BROKE,
    pycurl.E_UNSUPPORTED_PROTOCOL: "what answers there is no HTTP server",
    pycurl.E_FTP_WEIRD_SERVER_REPLY: "what answers there is no HTTP server",
    pycurl.E_BAD_CONTENT_ENCODING: "its answer cannot be decompressed",
}
END = frozenset({b"\r\n", b"\n"})
"""The line that ends a head."""
_CLOSED = frozenset({pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR, pycurl.E_GOT_NOTHING, pycurl.E_HTTP2, E_HTTP2_STREAM})
"""How a connection fails that the server has closed."""


def new_handle(settings: Settings) -> pycurl.Curl:
    """Make a handle for requests to the API; the caller sets method, address, headers and where the answer goes."""
    handle = pycurl.Curl()
    milliseconds = int(settings.request_timeout * 1000)
    handle.setopt(pycurl.TIMEOUT_MS, milliseconds)
    handle.setopt(pycurl.CONNECTTIMEOUT_MS, milliseconds)
    handle.setopt(pycurl.NOSIGNAL, 1)
    handle.setopt(pycurl.MAXAGE_CONN, IDLE_SECONDS)
    handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)  # HTTP/2 where TLS negotiates it
    handle.setopt(pycurl.CAINFO, tls_and_proxy.ca_file())
    handle.setopt(pycurl.PROXY_CAINFO, tls_and_proxy.ca_file())
    if proxy := tls_and_proxy.proxy_for(settings.api_base_url):
        handle.setopt(pycurl.PROXY, proxy)
    return handle


def bearer(access_token: str, *more: str) -> list[str]:
    """The headers that every request has."""
    return [f"Authorization: Bearer {access_token}", "Accept: application/json", "User-Agent: ai-task-processor", *more]


def in_words(handle: pycurl.Curl, code: int, timeout: float) -> str:
    """Why there is no whole answer: without addresses, times or anything else that differs from try to try."""
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return f"no whole answer within REQUEST_TIMEOUT ({timeout:g} s)"
    if handle.getinfo(pycurl.HTTP_CONNECTCODE) >= 300:
        code = E_PROXY
    return _WORDS.get(code, f"the request failed (libcurl's error {code})")


def was_stale(handle: pycurl.Curl, code: int, lines: Sequence[bytes]) -> bool:
    """Whether a request failed because its connection, kept from an earlier one, had been closed meanwhile."""
    return code in _CLOSED and not lines and handle.getinfo(pycurl.NUM_CONNECTS) == 0


def status(lines: Sequence[bytes]) -> int:
    """The status of an answer whose head is whole and begins as HTTP does; else 0.

    libcurl's own number is not enough where 200 settles a task: it also takes the end of the connection for the end of
    the head, and `HTTP/1.1 0 ` or `HTTP!` for a server of old that means 200.
    """
    whole = False
    for line in reversed(lines):  # trailers may stand behind the head, interim answers before it
        if line[:5] != b"HTTP/":
            whole = whole or line in END
        else:
            words = line.split(None, 2)
            number = words[1] if whole and len(words) > 1 else b""
            return int(number) if len(number) == 3 and number.isdigit() and number >= b"200" else 0
    return 0


def headers(lines: Iterable[bytes]) -> Mapping[str, str]:
    """The headers of an answer from its lines, as HEADERFUNCTION gets them.

    Those of interim answers (100, 103) and of a proxy come first, and are dropped.
    """
    found: dict[str, str] = {}
    for line in lines:
        if line.startswith(b"HTTP/"):
            found.clear()
        name, _, value = line.decode("latin-1").partition(":")
        found[name.strip().lower()] = value.strip()
    return found


def patience(lines: Iterable[bytes]) -> float | None:
    """Seconds that an answer asks to wait; None if it does not."""
    return retry_after(headers(lines), time.time())
