"""Response headers that say when to send again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.failures.wait_hints import LONGEST_WAIT_S
from stages.embedder.providers.rate_limit_headers import delay, pause

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("12ms", 0.012),
        ("6m0s", 360),
        ("1m30.5s", 90.5),
        ("30s", 30),
        ("30 s", 30),
        ("1h2m3s", LONGEST_WAIT_S),
        ("1d", LONGEST_WAIT_S),
        ("7", 7),
        ("0.5", 0.5),
        (f"{NOW + 6:.0f}", 6),
        (f"{NOW + 6:.3f}", 6),
        (f"{(NOW + 6) * 1000:.0f}", 6),
        (f"{NOW - 60:.0f}", 0),
        ("2027-01-15T08:00:30Z", 30),
        ("", 0),
        ("-1", 0),
        ("soon", 0),
        ("5sx", 0),
        ("nan", 0),
        ("inf", 0),
        ("9" * 400, 0),
    ],
)
def test_a_reset_is_read_as_a_duration_a_number_or_a_time_and_anything_else_is_ignored(
    value: str, seconds: float
) -> None:
    for unit in ("requests", "tokens"):
        headers = {f"x-ratelimit-remaining-{unit}": "0", f"x-ratelimit-reset-{unit}": value}
        assert delay(headers, NOW) == pytest.approx(seconds)
        assert pause(headers, 1, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30),
        ({"retry-after": "nonsense"}, 0),
        ({"x-ratelimit-reset-requests": "2s"}, 2),
        ({"x-ratelimit-reset-requests": "2s", "x-ratelimit-reset-tokens": "6m0s"}, 360),
        (
            {
                "x-ratelimit-reset-requests": "2s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "6m0s",
                "x-ratelimit-remaining-tokens": "500",
            },
            2,
        ),
        ({"retry-after": "99999999"}, LONGEST_WAIT_S),
        ({"retry-after-ms": "99999999999"}, LONGEST_WAIT_S),
        ({"retry-after-ms": "soon", "retry-after": "30s"}, 30),
        ({"retry-after": f"{NOW + 6:.0f}"}, 6),
    ],
)
def test_the_delay_after_a_429_comes_from_the_most_specific_header(headers: dict[str, str], seconds: float) -> None:
    assert delay(headers, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "6s"}, 0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6s"}, 6),
        (  # ten requests refill in six seconds, so one takes 0.6
            {
                "x-ratelimit-limit-requests": "10",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "6s",
            },
            0.6,
        ),
        (
            {
                "x-ratelimit-limit-tokens": "10000",
                "x-ratelimit-remaining-tokens": "400",
                "x-ratelimit-reset-tokens": "57.6s",
            },
            3.6,
        ),
        ({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "60s"}, 0),
        ({"x-ratelimit-remaining-tokens": "many", "x-ratelimit-reset-tokens": "60s"}, 0),
        ({"x-ratelimit-remaining-requests": "0"}, 0),
    ],
)
def test_the_pause_after_a_success_lasts_until_the_quota_allows_the_next_request(
    headers: dict[str, str], seconds: float
) -> None:
    assert pause(headers, 1000, NOW) == pytest.approx(seconds)


NAMES = ["retry-after", "retry-after-ms"] + [
    f"x-ratelimit-{what}-{unit}" for what in ("limit", "remaining", "reset") for unit in ("requests", "tokens")
]


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=30)), st.integers(0, 10**9))
def test_any_header_gives_a_delay_within_bounds(headers: dict[str, str], tokens: int) -> None:
    assert 0 <= delay(headers, NOW) <= LONGEST_WAIT_S
    assert 0 <= pause(headers, tokens, NOW) <= LONGEST_WAIT_S
