"""Faults: what they do, and which requests they apply to.

A fault is a JSON object. These fields select requests:

    service         "api", "oauth2", "openai" or "ollama" (required)
    method          this method only
    path            this regular expression matches in the path with its query ("pending", "^/api/embed$")
    body_contains   the request's body contains this text, for example the id of a task
    skip            do not apply to this number of matching requests first
    every           apply to each n-th of the following matching requests only (default 1)
    times           apply to at most this number of requests (default: no limit)
    probability     apply to this share of the matching requests (default 1), drawn from a random generator with `seed`

Exactly one of these says what happens (`delay` may be combined with another one):

    delay           wait this number of seconds, then continue
    status          respond with this status, `body` (text) and `headers`; with `stored: true` the request is carried
                    out first (the PATCH is accepted, the tokens are charged), without it the request has no effect
    drop            "before": close the connection without carrying out the request; "after": carry it out, then close
                    without a response. With `reset: true` the caller sees a TCP reset instead of a normal close.
    cut             send this number of bytes of the real response, including its head, and close (or `reset`)
    dribble         send the real response at this number of bytes a second
    hold            true: carry out the request, but keep the response until `POST /release`
    transform       carry out the request, but corrupt the response: a name from transforms.py (openai and ollama only)
    framing         how the real response ends: "chunked" (complete), "chunked_close" (closed before the last chunk),
                    "until_close" (without a length; the end of the connection is the end of the response)

The delays of all matching faults add up. Of the other matching faults only the oldest applies and counts the request.
"""

import random
import re
from typing import Annotated, Any, Literal

import msgspec

from sandbox.http import Request
from sandbox.transforms import ANY_PROVIDER, OPENAI_ONLY

_EFFECTS = ("status", "drop", "cut", "dribble", "hold", "transform", "framing")


class FaultSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The fields described above."""

    service: Literal["api", "oauth2", "openai", "ollama"]
    method: str | None = None
    path: str | None = None
    body_contains: str | None = None
    skip: Annotated[int, msgspec.Meta(ge=0)] = 0
    every: Annotated[int, msgspec.Meta(ge=1)] = 1
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    seed: int = 0
    delay: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] | None = None
    headers: dict[str, str] = {}
    body: str = ""
    stored: bool = False
    drop: Literal["before", "after"] | None = None
    reset: bool = False
    cut: Annotated[int, msgspec.Meta(ge=0)] | None = None
    dribble: Annotated[int, msgspec.Meta(ge=1)] | None = None
    hold: Literal[True] | None = None
    transform: str | None = None
    framing: Literal["chunked", "chunked_close", "until_close"] | None = None

    def __post_init__(self) -> None:
        """Reject combinations that make no sense; raises ValueError."""
        named = [name for name in _EFFECTS if getattr(self, name) is not None]
        if len(named) > 1 or not (named or self.delay):
            raise ValueError(
                f"a fault must have exactly one effect (delay, {', '.join(_EFFECTS)}), but this one has {len(named)}"
            )
        known = {"openai": ANY_PROVIDER | OPENAI_ONLY, "ollama": ANY_PROVIDER}.get(self.service, frozenset())
        if self.transform is not None and self.transform not in known:
            raise ValueError(f"{self.service} has no transform {self.transform!r}, only {sorted(known)}")
        try:
            re.compile(self.path or "")
        except re.error as error:
            raise ValueError(f"path is not a valid regular expression: {error}") from error

    @property
    def effect(self) -> str:
        """The name of the effect; "delay" if there is no other."""
        return next((name for name in _EFFECTS if getattr(self, name) is not None), "delay")


class Fault:
    """A fault in force."""

    def __init__(self, number: int, spec: FaultSpec) -> None:
        self.number = number
        self.spec = spec
        self.effect = spec.effect
        self.matched = 0
        self.applied = 0
        self._path = re.compile(spec.path.encode()) if spec.path else None
        self._random = random.Random(spec.seed)

    def matches(self, request: Request) -> bool:
        """Whether the fault selects this request."""
        spec = self.spec
        return (
            (spec.method is None or request.method == spec.method.encode())
            and (self._path is None or self._path.search(request.url) is not None)
            and (spec.body_contains is None or spec.body_contains.encode() in request.body)
        )

    def applies(self) -> bool:
        """Count a matching request; returns whether the fault applies to it."""
        spec = self.spec
        self.matched += 1
        if self.matched <= spec.skip or (spec.times is not None and self.applied >= spec.times):
            return False
        if (self.matched - spec.skip) % spec.every:
            return False
        if spec.probability < 1 and self._random.random() >= spec.probability:
            return False
        self.applied += 1
        return True

    def summary(self) -> dict[str, Any]:
        """The fault as it was added, with how often it matched and applied."""
        return {
            **msgspec.to_builtins(self.spec),
            "number": self.number,
            "matched": self.matched,
            "applied": self.applied,
        }


def choose(faults: list[Fault], request: Request) -> tuple[float, Fault | None]:
    """Seconds to wait, and the one fault to apply afterwards, if any."""
    delay, chosen = 0.0, None
    for fault in faults:
        if chosen is not None and fault.effect != "delay":
            continue
        if fault.matches(request) and fault.applies():
            delay += fault.spec.delay
            if fault.effect != "delay":
                chosen = fault
    return delay, chosen
