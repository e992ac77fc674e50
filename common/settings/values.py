"""The kinds of values that settings have, and what is refused of each, in words for the operator."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

from msgspec import Meta

from common.settings.conversion import Prepare
from common.settings.model_limits import unique_members
from common.settings.secret_str import SecretStr
from common.wire.timing import TICK_S

_HOST = re.compile(r"[\w.-]+|[0-9a-fA-F:.%]+")
"""A name or an IPv4 address, or an IPv6 address without its brackets."""

_SLUG = re.compile(r"[A-Za-z0-9-]*")


def _address(value: str) -> SplitResult:
    if not value.isprintable() or " " in value or "\\" in value:
        raise ValueError("must not contain spaces, line breaks or backslashes")
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("must be an http:// or https:// address")
    if not _HOST.fullmatch(parts.hostname):
        raise ValueError("must have a valid host name")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or password: the service has settings of their own for them")
    if "#" in value:
        raise ValueError("must not contain a fragment (#)")
    return parts


def _base_url(value: str) -> str:
    _address(value)
    if "?" in value:
        raise ValueError("must not contain a query (?), because paths are appended to it")
    return value.rstrip("/")


def _endpoint(value: str) -> str:
    _address(value)
    return value


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("must be an IANA time zone such as Europe/Berlin") from error
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _json(value: object) -> object:
    """Parse a list or an object, which is given as JSON. Invalid JSON is reported like any other wrong value."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=unique_members, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"must be JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise ValueError("must be JSON that is nested less deeply") from error


def _refuse_constant(name: str) -> object:
    raise ValueError(f"must be JSON, which has no {name}")


def _zero_or_a_mebibyte(value: int) -> int:
    if 0 < value < 2**20:
        raise ValueError("must be 0 (off) or at least 1048576 (bytes)")
    return value


def _zero_or_two(value: int) -> int:
    if value == 1:
        raise ValueError("must be 0 (off) or at least 2: polls and PATCHes need one each")
    return value


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must not contain line breaks, tabs or other control characters")
    return value


def _trimmed(value: str) -> str:
    if value != value.strip():
        raise ValueError("must not begin or end with a space")
    return _one_line(value)


def _one_line_secret(value: SecretStr) -> SecretStr:
    if not _one_line(value.get_secret_value()).strip():
        raise ValueError("must not be blank")
    return value


def _slug(value: str) -> str:
    if not _SLUG.fullmatch(value):
        raise ValueError(f"string should match pattern '{_SLUG.pattern}'")
    return value


def _folder(value: Path) -> Path:
    _one_line(str(value))
    return value


def _key(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text.isprintable() or " " in text or not text.isascii():
        raise ValueError("must not contain spaces, line breaks or characters that no key has")
    return value


BaseUrl = Annotated[str, _base_url]
"""Paths are appended to it."""
Endpoint = Annotated[str, _endpoint]
"""A whole address, which may have a query."""
Line = Annotated[str, _trimmed]
Slug = Annotated[str, _slug]
Folder = Annotated[Path, _folder]
Secret = Annotated[SecretStr, _one_line_secret]
Key = Annotated[SecretStr, _key]
"""A secret that is sent as a part of a header."""
TimeZone = Annotated[str, _timezone]
LOWER = Prepare(_lower)
"""Upper and lower case mean the same."""
JSON = Prepare(_json)
"""A list or an object, given as JSON."""
Seconds = Annotated[float, Meta(gt=0, le=86_400 * 31)]
Timeout = Annotated[float, Meta(ge=0.1, le=86_400)]
"""Seconds; a shorter one would end each request before it can be answered."""
Interval = Annotated[float, Meta(ge=TICK_S, le=86_400 * 31)]
"""Seconds; the loops of the processes look at the time once in a tick, so a shorter one means nothing."""
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
RequestsPerMinute = Annotated[int, Meta(ge=0, le=10_000_000), _zero_or_two]
VectorLength = Annotated[int, Meta(ge=1, le=65_536)]
CacheBytes = Annotated[int, Meta(ge=0, le=2**40), _zero_or_a_mebibyte]
