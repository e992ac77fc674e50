"""An issuer, and what its requests and its metric show."""

from __future__ import annotations

import base64
import socket
from typing import Any
from urllib.parse import unquote_plus

from common.failures.errors import SettingsError
from common.process import metrics
from common.settings.settings import Settings
from stages.token_broker.issuer import Issuer
from tests import samples
from tests.token_broker.endpoint import Asked, Endpoint, Handler

SECRET = "canary +/=&%:~ü€😀"


def configured(url: str, **changes: Any) -> Settings:
    fields = {
        "oauth2_client_id": "the client: ü",
        "oauth2_client_secret": SECRET,
        "oauth2_token_url": url,
        "request_timeout": 5,
        "runtime_dir": "/tmp/unused",
    }
    return samples.settings(**{**fields, **changes})


def issuer(endpoint: Endpoint, **changes: Any) -> Issuer:
    return Issuer(configured(endpoint.url, **changes), post=lambda _: None, reread=no_rotation)


def no_rotation() -> Settings:
    raise SettingsError(["OAUTH2_CLIENT_SECRET_FILE: is gone"])


def count(status: str) -> float:
    return metrics.REGISTRY.get_sample_value("oauth2_token_requests_total", {"status": status}) or 0.0


def basic(asked: Asked) -> tuple[str, str]:
    """What an RFC 6749 server reads from the header."""
    encoded = asked.headers["authorization"].removeprefix("Basic ")
    client_id, _, secret = base64.b64decode(encoded).decode("ascii").partition(":")
    return unquote_plus(client_id), unquote_plus(secret)


def hang_up(handler: Handler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)
