"""How long the headers of a response ask the client to wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.failures.retry import retry_after
from common.failures.wait_hints import LONGEST_WAIT_S

NOW = 1_445_412_470.0  # Wed, 21 Oct 2015 07:27:50 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"RETRY-AFTER": "-3"}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 10.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 -0000"}, 10.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:00:00 GMT"}, 0.0),
        ({"Retry-After": "99999999"}, LONGEST_WAIT_S),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 +99999999999999"}, None),
        ({"x-ratelimit-reset": "12"}, 12.0),
        ({"X-RateLimit-Reset": "1445412475"}, 5.0),
        ({"x-ratelimit-reset": "12", "x-ratelimit-remaining": "0"}, 12.0),
        ({"x-ratelimit-reset": "12", "x-ratelimit-remaining": "3"}, None),
        ({"x-ratelimit-reset": "12", "Retry-After": "2"}, 2.0),
        ({"x-ratelimit-reset": "12", "Retry-After": "soon"}, 12.0),
    ],
)
def test_headers_give_the_seconds_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@given(st.text(), st.text())
def test_any_header_gives_a_limited_wait_or_none(retry: str, reset: str) -> None:
    wait = retry_after({"Retry-After": retry, "x-ratelimit-reset": reset}, NOW)
    assert wait is None or 0 <= wait <= LONGEST_WAIT_S
