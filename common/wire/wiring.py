"""The only table of which process may send which message to which other process, and at which endpoint.

Every process binds one PULL socket, its inbox, at `ipc://RUNTIME_DIR/<instance>.sock`. Everything else is a PUSH into
the inbox of another process. A request names the inbox for its reply (`reply_to`), so an embedder needs no fixed name.
"""

from __future__ import annotations

from pathlib import Path

from common.wire import messages as m

STAGES = ("fetcher", "token_broker", "rate_limiter", "embedder", "publisher", "monitor")
"""The stages; each is a package under `stages/` of the same name."""

OPERATOR = "operator"
"""The sender name of the commands `python -m stages …`, which act for an operator."""
SENDERS = frozenset({*STAGES, OPERATOR})
"""Every stage that a frame may give as its sender, and the operator."""

EDGES: dict[tuple[str, str], tuple[type[m.Message], ...]] = {  # (sender, receiver) → messages
    ("fetcher", "rate_limiter"): (m.Tasks,),
    ("fetcher", "publisher"): (m.Results, m.ApiReachable),
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

REPEATED = (m.Ready, m.Holding, m.ApiReachable, m.Draining, m.Heartbeat, m.TokenRequest)
"""Their senders repeat these. While the receiver is not connected they are dropped, not queued."""


def is_repeated(message: m.Message) -> bool:
    """Whether the sender repeats the message by itself: those in `REPEATED`, and results until `Stored` comes."""
    return isinstance(message, REPEATED) or (isinstance(message, m.Results) and bool(message.reply_to))


def stage_of(instance: str) -> str:
    """The stage of an instance: `embedder_07` → `embedder`. Other stages have one instance with the stage's name."""
    return "embedder" if instance.startswith("embedder_") else instance


class Wiring:
    """The endpoints of one pipeline, and what one instance may send."""

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
        """The instance that `Send.to` names: either an instance name, or an endpoint from a message's `reply_to`."""
        return to.rpartition("/")[2].removesuffix(".sock")

    def receivers(self) -> list[str]:
        """The stages that this one sends to and that have a single instance."""
        return [to for sender, to in EDGES if sender == self.stage and to != "embedder"]

    def check(self, to: str, message: m.Message) -> None:
        """Raise `AssertionError` for a message that is not in `EDGES`: this is a bug, not an outage."""
        edge = (self.stage, stage_of(self.instance_at(to)))
        if type(message) not in EDGES.get(edge, ()):
            raise AssertionError(f"no edge carries {type(message).__name__} from {edge[0]} to {edge[1]}")
