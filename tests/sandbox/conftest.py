"""Clients of the sandbox."""

from collections.abc import Iterator
from urllib.parse import quote_plus

import pytest
import requests

from sandbox.client import Sandbox


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False  # no proxy, no .netrc
        yield session


@pytest.fixture
def credentials(sandbox: Sandbox) -> tuple[str, str]:
    return quote_plus(sandbox.client_id), quote_plus(sandbox.client_secret)


@pytest.fixture
def signed_in(sandbox: Sandbox, session: requests.Session, credentials: tuple[str, str]) -> requests.Session:
    """A session whose requests carry a good token."""
    response = session.post(sandbox.token_url, data={"grant_type": "client_credentials"}, auth=credentials)
    session.headers["Authorization"] = f"Bearer {response.json()['access_token']}"
    return session
