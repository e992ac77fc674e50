"""Every message between the processes: one tagged union, decoded by one typed decoder.

A message is encoded as a msgpack array, so a field is identified by its position. Add a new field at the end and give
it a default; then older bytes still decode. Times are seconds since the epoch. Vectors are little-endian float32 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from common.wire.parts import Family, Part, QuotaWindow


class Message(msgspec.Struct, array_like=True, tag_field="message", tag=True):
    """A message: the payload of one frame."""


class Task(Part):
    """One pending task that the fetcher has validated."""

    id: str
    type: str
    """The task type's name, such as `text_embedding`."""
    key: str
    """The batch key: a batch has tasks of one type and one key. For embeddings the key is the model."""
    content: bytes
    """The task's content as JSON; its task type decodes it."""
    tokens: int
    """The estimated cost in tokens; never too low."""
    leased_at: float
    """When the fetcher first leased it. Distinguishes this processing of the id from an earlier one."""
    attempt: int = 1
    """1, plus the number of times it was lost together with the embedder that had it."""
    created_at: str = ""
    """The API's `createdAt`, unchanged."""


class Failure(Part):
    """Why a task is reported failed."""

    code: str
    """Short and stable, for programs: `invalid_content`, `poison_task`, …"""
    message: str
    """A sentence for people; never contains the task's text."""


class Result(Part):
    """The outcome of one task: exactly one of `vector`, `document` and `failure` is set."""

    id: str
    type: str
    leased_at: float
    vector: bytes = b""
    """(d,) float32, little-endian."""
    document: bytes = b""
    """JSON, for task types whose result is not a vector."""
    failure: Failure | None = None


class Tasks(Message):
    """fetcher → rate_limiter: newly leased tasks, oldest first."""

    tasks: list[Task]


class Charge(Part):
    """What a batch was charged. It travels with the batch, so a restarted rate limiter can settle it."""

    at: float
    """When it was charged; identifies the buckets."""
    tokens: int
    requests: int
    send_by: float = 0.0
    """Until when requests may be written (seconds since the machine booted); 0: at any time."""


class HeldBatch(Part):
    """A batch that an embedder has, finished or not."""

    batch_id: str
    key: str
    ids: list[str]
    charge: Charge | None = None


class Ready(Message):
    """embedder → rate_limiter, each second and after each batch: its free slots, and the batches it has."""

    embedder: str
    """Its instance name, such as `embedder_00`."""
    boot_id: str
    """A new value for each start of the process."""
    inbox: str
    """The endpoint where it receives batches."""
    free: int
    """How many more batches it can take now."""
    held: list[HeldBatch]
    key_cooldowns: dict[str, float] = {}
    """Batch keys that its provider cannot serve now, each with the time to try again (seconds since the epoch)."""
    provider_cooldowns: dict[str, float] = {}
    """Providers that asked for a pause, each with its end (seconds since the epoch). It applies to all embedders."""


class Batch(Message):
    """rate_limiter → one embedder with a free slot: process these tasks."""

    batch_id: str
    boot_id: str
    """The boot id of the embedder it is for; an embedder with another boot id drops it."""
    type: str
    key: str
    tasks: list[Task]
    charge: Charge | None = None
    limited: bool = False
    """A quota is in force: no more requests than charged, and no resend of a text that may have been paid for."""


class ProviderCooldowns(Message):
    """rate_limiter → every embedder except the one that reported it: send nothing to these providers for now."""

    until: dict[str, float]
    """Provider → end of its cooldown (seconds since the epoch)."""


class Finished(Message):
    """embedder → rate_limiter: a batch has left its slot; its results are stored, or it cannot be processed now."""

    embedder: str
    boot_id: str
    batch_id: str
    tokens: int = 0
    """Tokens that the provider reported as used, plus the estimate for each request with an unknown outcome."""
    requests: int = 0
    """How many provider requests were made for it."""
    deferred: list[str] = []
    """Ids that the provider could not process now: they have neither failed nor been paid for."""
    until: float = 0.0
    """When the deferred tasks may be tried again (seconds since the epoch)."""
    unsent: bool = False
    """Whether the deferred tasks certainly did not reach the provider: then their charge is refunded."""
    uncharged: int = 0
    """How many tasks cost nothing: their vectors were cached, or they were not sent. Their charge is refunded."""
    requeue: dict[int, list[str]] = {}
    """Ids to queue again because the batch used up its request budget, by the most tasks of their next batch."""
    reached_ago_s: float = 0.0
    """How many seconds ago the last request of the batch reached the provider, at the latest; 0 without a request."""


class Results(Message):
    """embedder → publisher: the results of a batch. fetcher → publisher: failures of tasks that cannot be processed."""

    batch_id: str
    reply_to: str
    """The endpoint that waits for `Stored`; empty if none does."""
    results: list[Result]
    boot_id: str = ""


class Stored(Message):
    """publisher → embedder: the results of this batch are committed to disk."""

    batch_id: str


class Draining(Message):
    """embedder → publisher, repeatedly while the embedder drains: more results may come."""

    embedder: str
    boot_id: str
    done: bool = False
    """Whether this is the last one: all results are stored, and the embedder stops."""


class Published(Message):
    """publisher → fetcher: these tasks are settled."""

    accepted: list[str]
    """The API accepted the result, or no longer has the task."""
    dead: list[str] = []
    """The API refused the result, which is now a dead letter: the task must not be fetched again."""
    dropped: list[str] = []
    """An operator dropped the dead letter: the task may be fetched again."""


class Holding(Message):
    """rate_limiter, publisher → fetcher, three times per lease: the sender has these tasks. Renews their leases."""

    stage: str
    ids: list[str]
    embedding: list[str] = []
    """More ids: those that an embedder has now. If one of them is lost, it may have caused the embedder's death."""
    dead: list[str] | None = None
    """All dead letters of the publisher; None if the message does not list them."""
    inventory_complete: bool = False
    """Sent once after a rate limiter starts: any dispatched task that this inventory does not list is lost."""
    parked: list[str] = []
    """More ids, of the publisher: the API refused these results before, and they wait for their next try."""


class ApiReachable(Message):
    """fetcher → publisher, after each poll that succeeded: the API answers. So a PATCH may be tried again."""


class Deferred(Message):
    """rate_limiter → fetcher: the rate limiter gives these tasks back; they stay pending in the API."""

    ids: list[str]
    until: float
    """Not before this time (seconds since the epoch)."""
    reason: str
    """`quota`, `provider` or `poison` (lost together with its embedder too often: report the task failed)."""
    key: str | None = None
    """If set, no task with this batch key can be processed before `until`; `*` stands for every key."""


class TokenRequest(Message):
    """fetcher, publisher → token_broker: send the access token."""

    reply_to: str
    rejected: str = ""
    """Fingerprint of a token that the API refused. The broker replaces it only if it is still the current one."""
    has_worked: bool = False
    """Whether the API accepted that token before. If not, the API may refuse every token."""


class Token(Message):
    """token_broker → fetcher, publisher: the access token. It is kept in memory only."""

    access_token: str
    expires_at: float
    fingerprint: str

    def __repr__(self) -> str:
        """Show everything except the secret."""
        return f"Token(fingerprint={self.fingerprint!r}, expires_at={self.expires_at!r})"


class DeadLetters(Message):
    """`python -m stages dead-letters` → publisher: replay or drop these dead letters."""

    replay: list[str] = []
    drop: list[str] = []


class Heartbeat(Message):
    """every process → monitor, each second: the process is alive, and this is its state."""

    stage: str
    instance: str
    boot_id: str
    pid: int
    time: float
    blockers: list[str]
    """Sentences for `/ready`: why this process cannot process a task now. Empty if it can."""
    facts: dict[str, Any]
    """What `/health` shows about the process, by name: the processing mode, the rate-limit strategy, …"""
    metrics: list[Family] = []
    windows: list[QuotaWindow] = []


AnyMessage: TypeAlias = (
    Tasks
    | Ready
    | Batch
    | ProviderCooldowns
    | Finished
    | Results
    | Stored
    | Draining
    | Published
    | Holding
    | ApiReachable
    | Deferred
    | TokenRequest
    | Token
    | DeadLetters
    | Heartbeat
)

encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], AnyMessage] = msgspec.msgpack.Decoder(AnyMessage).decode


def decode(frame: bytes) -> AnyMessage:
    """Decode a frame. Raises `msgspec.MsgspecError` for every invalid frame, and no other error."""
    try:
        return _decode(frame)
    except (UnicodeDecodeError, RecursionError) as error:  # msgspec does not wrap these
        raise msgspec.DecodeError(f"not a valid message: {error}") from error
