"""Which authorities certify the other side, and through which proxy it is reached: one answer for every HTTP library.

Left alone, they differ: `requests` reads REQUESTS_CA_BUNDLE and not SSL_CERT_FILE, libcurl neither; libcurl reads
http_proxy and not HTTP_PROXY. NO_PROXY they all read themselves.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

import certifi


def ca_file() -> str:
    """The file of certificates to trust: SSL_CERT_FILE, or REQUESTS_CA_BUNDLE, or those that browsers trust."""
    return os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where()


def proxy_for(url: str) -> str:
    """The proxy that the environment names for this kind of address; empty for none."""
    named = getproxies_environment()
    return named.get(urlsplit(url).scheme) or named.get("all") or ""
