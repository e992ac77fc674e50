"""Who may push what to whom, and at which endpoint: the only place that knows.

Every process binds one PULL socket, its inbox, at `ipc://RUNTIME_DIR/<instance>.sock`; all else is a PUSH into
somebody's inbox. A request names the inbox to answer, so the edges back to an embedder need no name here.
"""

from __future__ import annotations

from pathlib import Path

from common.wire import messages as m

STAGES = ("fetcher", "token_broker", "rate_limiter", "embedder", "publisher", "monitor")
"""Also the names of the packages under `stages/`."""

OPERATOR = "operator"
"""Sends on behalf of a person: `python -m stages …`."""

EDGES: dict[tuple[str, str], tuple[type[m.Message], ...]] = {
    ("fetcher", "rate_limiter"): (m.Tasks,),
    ("fetcher", "publisher"): (m.Results,),
    ("fetcher", "token_broker"): (m.TokenRequest,),
    ("rate_limiter", "embedder"): (m.Batch, m.ProviderCooldowns),
    ("rate_limiter", "fetcher"): (m.Holding, m.Deferred),
    ("embedder", "rate_limiter"): (m.Ready, m.Finished),
    ("embedder", "publisher"): (m.Results, m.Draining),
    ("publisher", "embedder"): (m.Stored,),
    ("publisher", "fetcher"): (m.Published, m.Holding),
    ("publisher", "token_broker"): (m.TokenRequest,),
    ("token_broker", "fetcher"): (m.Token,),
    ("token_broker", "publisher"): (m.Token,),
    (OPERATOR, "publisher"): (m.DeadLetters,),
    **{(stage, "monitor"): (m.Heartbeat,) for stage in STAGES},
}

REPEATED = (m.Ready, m.Holding, m.Draining, m.Heartbeat, m.TokenRequest)
"""Said again by their senders anyway: dropped, rather than queued, when nobody listens."""


def is_repeated(message: m.Message) -> bool:
    """Whether the sender says it again until it has had its effect: as `REPEATED`, and results until `Stored`."""
    return isinstance(message, REPEATED) or (isinstance(message, m.Results) and bool(message.reply_to))


def stage_of(instance: str) -> str:
    """`embedder_07` → `embedder`; the other stages run once, under their own name."""
    return "embedder" if instance.startswith("embedder_") else instance


class Wiring:
    """The endpoints of one installation, and what one instance may send."""

    def __init__(self, sockets: Path, instance: str) -> None:
        self.instance = instance
        self.stage = stage_of(instance)
        self.sockets = sockets
        self._prefix = f"ipc://{sockets}/"

    @property
    def inbox(self) -> str:
        """The endpoint that this instance binds."""
        return self.endpoint(self.instance)

    def endpoint(self, instance: str) -> str:
        """The endpoint of an instance's inbox."""
        return f"{self._prefix}{instance}.sock"

    def instance_at(self, to: str) -> str:
        """The instance behind what a `Send` names: an instance, or the endpoint from a message's `reply_to`."""
        return to.rpartition("/")[2].removesuffix(".sock")

    def receivers(self) -> list[str]:
        """The stages that run once and that this one sends to."""
        return [to for sender, to in EDGES if sender == self.stage and to != "embedder"]

    def check(self, to: str, message: m.Message) -> None:
        """Raise `AssertionError` for a message that no edge of the table carries: a bug, not an outage."""
        edge = (self.stage, stage_of(self.instance_at(to)))
        if type(message) not in EDGES.get(edge, ()):
            raise AssertionError(f"no edge carries {type(message).__name__} from {edge[0]} to {edge[1]}")
