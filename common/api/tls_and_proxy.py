"""The certificate authorities to trust and the proxy to use: the same for every HTTP library in the service.

By default the libraries differ: `requests` reads REQUESTS_CA_BUNDLE but not SSL_CERT_FILE, and libcurl reads neither;
libcurl reads http_proxy but not HTTP_PROXY. All of them read NO_PROXY themselves.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import certifi


def ca_file() -> str:
    """The file of trusted certificates: SSL_CERT_FILE, else REQUESTS_CA_BUNDLE, else those that browsers trust."""
    return os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where()


def proxy_for(url: str) -> str:
    """The proxy that the environment names for this scheme; empty if there is none."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return ""
    from urllib.request import getproxies_environment  # noqa: PLC0415  2 MiB: it loads an HTTP client and TLS

    named = getproxies_environment()
    return named.get(urlsplit(url).scheme) or named.get("all") or ""
