"""Connections to the API with TLS and a private certificate authority, proxies, IPv6 and HTTP/2."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypercorn.asyncio import serve
from hypercorn.config import Config

from common.wire.messages import Token
from sandbox.client import Sandbox
from sandbox.pipeline import free_port
from tests.edges.api import Api, api, failure, page
from tests.edges.relay import Proxy, Relay, serving

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("localhost", "127.0.0.1")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


@pytest.fixture
def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CERTIFICATE.configure_cert(context)
    return context


def both_work(sandbox: Sandbox, edges: Api) -> None:
    ids = sandbox.queue(20)
    assert len(page(edges.get()).candidates) == 20
    assert {response.status for response in edges.patch(ids[:16])} == {200}
    assert sandbox.summary()["api"]["accepted"] == 16


def test_tls_works_with_a_private_certificate_authority(
    sandbox: Sandbox, token: Token, tls: ssl.SSLContext, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Relay("127.0.0.1", sandbox.api, tls)) as port:
        url = f"https://localhost:{port}"
        with api(url, token) as edges:
            assert "not trusted: set SSL_CERT_FILE" in edges.patch_one("a").error
            assert "not trusted: set SSL_CERT_FILE" in str(failure(edges.get()).error)
        monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
        with api(url, token) as edges:
            assert "check SSL_CERT_FILE" in edges.patch_one("a").error
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        with api(url, token) as edges:
            both_work(sandbox, edges)
        with api(url.replace("localhost", "127.0.0.2"), token) as edges:  # not the name in the certificate
            assert edges.patch_one("a").status == 0


def test_tls_to_a_plain_http_server_is_an_error(sandbox: Sandbox, token: Token) -> None:
    with api(sandbox.api.replace("http:", "https:"), token) as edges:
        assert "TLS handshake failed" in edges.patch_one("a").error
        assert "TLS handshake failed" in str(failure(edges.get()).error)


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_an_http_proxy_is_used_for_http(
    sandbox: Sandbox, token: Token, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    proxy = Proxy()
    with serving(proxy) as port:
        monkeypatch.setenv(variable, f"http://user:secret@127.0.0.1:{port}")
        with api(sandbox.api, token) as edges:
            both_work(sandbox, edges)
        assert len(proxy.requests) == 17
        monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
        with api(sandbox.api, token) as edges:
            page(edges.get())
            assert edges.patch_one("a").status == 400
        assert len(proxy.requests) == 17


def test_an_http_proxy_is_used_for_https(
    sandbox: Sandbox, token: Token, tls: ssl.SSLContext, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    proxy = Proxy()
    with serving(Relay("127.0.0.1", sandbox.api, tls)) as behind, serving(proxy) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        with api(f"https://localhost:{behind}", token) as edges:
            both_work(sandbox, edges)
        assert set(proxy.requests) == {f"CONNECT localhost:{behind}"}
        proxy.status = 407
        with api(f"https://localhost:{behind}", token) as edges:
            assert "the proxy refused the connection: check HTTP_PROXY" in edges.patch_one("a").error
            assert "the proxy refused the connection: check HTTP_PROXY" in str(failure(edges.get()).error)


def test_an_unknown_proxy_host_is_an_error_with_its_reason(
    sandbox: Sandbox, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://no-such-proxy.invalid:3128")
    with api(sandbox.api, token) as edges:
        assert "proxy's host name cannot be resolved" in edges.patch_one("a").error


def test_ipv6_addresses_work(sandbox: Sandbox, token: Token) -> None:
    relay = Relay("::1", sandbox.api)
    with serving(relay) as port, api(f"http://[::1]:{port}", token) as edges:
        both_work(sandbox, edges)
        assert relay.connections == 17


class Http2:
    """An API that offers HTTP/2, and records the version of each request."""

    def __init__(self) -> None:
        self.versions: list[str] = []
        self.patched: list[Any] = []
        self.clients: set[Any] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.versions.append(scope["http_version"])
        self.clients.add(scope["client"])
        body = b""
        while (event := await receive())["type"] == "http.request":
            body += event["body"]
            if not event.get("more_body"):
                break
        if scope["method"] == "PATCH":
            self.patched.append(json.loads(body))
        response = b"[]" if scope["method"] == "GET" else b"{}"
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(response))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": response})


@contextlib.contextmanager
def http2(application: Http2, folder: Path) -> Iterator[int]:
    """Serve the application with TLS on a thread; yields the port."""
    config, port = Config(), free_port()
    config.bind = [f"127.0.0.1:{port}"]
    config.alpn_protocols = ["h2", "http/1.1"]
    config.keyfile, config.certfile = str(folder / "key.pem"), str(folder / "cert.pem")
    config.errorlog = config.accesslog = None
    CERTIFICATE.private_key_pem.write_to_path(config.keyfile)
    CERTIFICATE.cert_chain_pems[0].write_to_path(config.certfile)
    loop, stop, up = asyncio.new_event_loop(), asyncio.Event(), threading.Event()

    async def run() -> None:
        async def stopped() -> None:
            up.set()
            await stop.wait()

        await serve(application, config, shutdown_trigger=stopped)

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    try:
        assert up.wait(10)
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def test_http2_is_used_if_the_server_offers_it(
    token: Token, authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    application = Http2()
    with http2(application, tmp_path) as port, api(f"https://localhost:{port}", token, dimensions=3072) as edges:
        for _ in range(10):
            page(edges.get())
            responses = edges.patch(f"{number:024x}" for number in range(16))
            assert {(response.status, response.error) for response in responses} == {(200, "")}
        assert set(application.versions) == {"2"}
        assert len(application.patched) == 160
        assert len(application.patched[-1]["result"]) == 3072
        assert len(application.clients) <= 17  # one for the polls; PATCHes share one as soon as it is known for HTTP/2
