"""Faults: what one may say, and which requests it applies to.

A fault is a JSON object. Which requests:

    service         "api", "oauth2", "openai" or "ollama" (required)
    method          this method only
    path            this regular expression is found in the path with its query ("pending", "^/api/embed$")
    body_contains   this text is found in the request's body: a poisoned text, or one task's id
    skip            let the first so many matching requests pass
    times           apply to so many requests, then to none (default: for ever)
    probability     apply to this share of the matching requests (default 1), drawn from a generator with `seed`

What happens, exactly one of these (`delay` may also stand beside another):

    delay           wait so many seconds, then go on
    status          answer this status, with `body` (text) and `headers`; with `stored: true` the request is carried out
                    first (the PATCH is accepted, the tokens are paid), without it nothing else happens
    drop            "before": close the connection instead of doing anything; "after": do it, then close without an
                    answer. With `reset: true` the caller sees a TCP reset instead of an orderly close.
    cut             send the first so many bytes of the true answer, head included, and close (or `reset`)
    dribble         send the true answer at so many bytes a second
    hold            true: carry out, but keep the answer until `POST /release`
    transform       carry out, but spoil the answer: a name from transforms.py (openai and ollama only)
    framing         how the true answer ends: "chunked" (properly), "chunked_close" (closed before the last chunk),
                    "until_close" (no length, the close is the end)

The delays of all matching faults add up; of the others the oldest that matches wins, and the rest do not count it.
"""

import random
import re
from typing import Annotated, Any, Literal

import msgspec

from sandbox.http import Request
from sandbox.transforms import ANY_PROVIDER, OPENAI_ONLY

_EFFECTS = ("status", "drop", "cut", "dribble", "hold", "transform", "framing")


class FaultSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The fields above."""

    service: Literal["api", "oauth2", "openai", "ollama"]
    method: str | None = None
    path: str | None = None
    body_contains: str | None = None
    skip: Annotated[int, msgspec.Meta(ge=0)] = 0
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
        """Refuse what no request could make sense of."""
        named = [name for name in _EFFECTS if getattr(self, name) is not None]
        if len(named) > 1 or not (named or self.delay):
            raise ValueError(f"a fault has one effect (delay, {', '.join(_EFFECTS)}), this one has {len(named)}")
        known = {"openai": ANY_PROVIDER | OPENAI_ONLY, "ollama": ANY_PROVIDER}.get(self.service, frozenset())
        if self.transform is not None and self.transform not in known:
            raise ValueError(f"{self.service} has no transform {self.transform!r}, only {sorted(known)}")
        try:
            re.compile(self.path or "")
        except re.error as error:
            raise ValueError(f"path is no regular expression: {error}") from error

    @property
    def effect(self) -> str:
        """The effect's name, "delay" when it has no other."""
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
        """Whether the request is one of those that the fault is for."""
        spec = self.spec
        return (
            (spec.method is None or request.method == spec.method.encode())
            and (self._path is None or self._path.search(request.url) is not None)
            and (spec.body_contains is None or spec.body_contains.encode() in request.body)
        )

    def strikes(self) -> bool:
        """Whether it applies to this matching request; counts it."""
        spec = self.spec
        self.matched += 1
        if self.matched <= spec.skip or (spec.times is not None and self.applied >= spec.times):
            return False
        if spec.probability < 1 and self._random.random() >= spec.probability:
            return False
        self.applied += 1
        return True

    def summary(self) -> dict[str, Any]:
        """The fault as it was given, and how often it applied."""
        return {
            **msgspec.to_builtins(self.spec),
            "number": self.number,
            "matched": self.matched,
            "applied": self.applied,
        }


def choose(faults: list[Fault], request: Request) -> tuple[float, Fault | None]:
    """How long to wait, and the one fault to apply then."""
    delay, chosen = 0.0, None
    for fault in faults:
        if chosen is not None and fault.effect != "delay":
            continue
        if fault.matches(request) and fault.strikes():
            delay += fault.spec.delay
            if fault.effect != "delay":
                chosen = fault
    return delay, chosen
