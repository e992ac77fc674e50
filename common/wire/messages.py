"""What travels between the processes: one tagged union, decoded by one typed decoder.

Structs travel as msgpack arrays, so a field is known by its place: append new fields at the end and give them a
default, and old bytes still decode. Times are wall-clock seconds. Vectors are little-endian float32 bytes.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec


class Part(msgspec.Struct, array_like=True, gc=False):
    """Something inside a message."""


class Message(msgspec.Struct, array_like=True, tag_field="message", tag=True):
    """One frame on the wire."""


class Task(Part):
    """One pending task, validated by the fetcher."""

    id: str
    type: str
    """The task type's name, such as `text_embedding`."""
    key: str
    """The batch key: only tasks of one type and key share a batch. For embeddings it is the model."""
    content: bytes
    """The task's content as JSON, as its task type will decode it."""
    tokens: int
    """An estimate of the tokens it costs that is never too low."""
    leased_at: float
    """When the fetcher first leased it: tells this processing of the id from an earlier one."""
    attempt: int = 1
    """1 + how often it was lost together with the worker that had it."""
    created_at: str = ""
    """The API's `createdAt`, as it came."""


class Failure(Part):
    """Why a task is reported failed."""

    code: str
    """Short and stable, for machines: `invalid_content`, `poison_task`, …"""
    message: str
    """A sentence for people, without the task's text."""


class Result(Part):
    """The outcome of one task: exactly one of vector, document and failure is set."""

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
    """What a batch was charged with; it travels along, so that a rate limiter that restarted can settle it."""

    at: float
    """When; finds the buckets that were charged."""
    tokens: int
    requests: int


class HeldBatch(Part):
    """A batch that an embedder has, finished or not."""

    batch_id: str
    key: str
    ids: list[str]
    charge: Charge | None = None


class Ready(Message):
    """embedder → rate_limiter: each second and after each batch: what it could take and what it has."""

    embedder: str
    """Its instance name, such as `embedder_00`."""
    boot_id: str
    """Changes with each start of the process."""
    inbox: str
    """The endpoint where it takes batches."""
    free: int
    """How many more batches it would take now."""
    held: list[HeldBatch]
    key_cooldowns: dict[str, float] = {}
    """Batch keys that its provider cannot serve now → when to try again (seconds since the epoch)."""
    provider_cooldowns: dict[str, float] = {}
    """Providers that asked to be left alone → until when (seconds since the epoch): it holds for all embedders."""


class Batch(Message):
    """rate_limiter → one embedder with a free slot."""

    batch_id: str
    boot_id: str
    """The boot of the embedder it is meant for; another boot drops it."""
    type: str
    key: str
    tasks: list[Task]
    charge: Charge | None = None
    limited: bool = False
    """A quota is in force: no more requests than were charged, and no text again that may have been paid for."""


class ProviderCooldowns(Message):
    """rate_limiter → every embedder but the one that said so: these providers are to be left alone."""

    until: dict[str, float]
    """By provider; seconds since the epoch."""


class Finished(Message):
    """embedder → rate_limiter: a batch left its slot: its results are stored, or it could not be processed now."""

    embedder: str
    boot_id: str
    batch_id: str
    tokens: int = 0
    """What the provider reported as used, and for requests of unknown outcome the estimate; settles the reservation."""
    requests: int = 0
    """Provider requests that were made for it."""
    deferred: list[str] = []
    """Ids that the provider could not take now: neither failed nor paid."""
    until: float = 0.0
    """When the deferred may be tried again."""
    unsent: bool = False
    """The deferred certainly never reached the provider: their charge is refunded."""
    uncharged: int = 0
    """Tasks that cost nothing: their vectors were known, or they were not sent; their charge is refunded."""
    requeue: dict[int, list[str]] = {}
    """Ids for which the batch's requests did not suffice, by the size of the largest batch they should be in next."""
    reached_ago_s: float = 0.0
    """How many seconds ago its last request had reached the provider at the latest; 0 if there was none."""


class Results(Message):
    """embedder (or fetcher, for tasks that cannot be processed) → publisher."""

    batch_id: str
    reply_to: str
    """The endpoint that waits for `Stored`; empty when nobody does."""
    results: list[Result]
    boot_id: str = ""


class Stored(Message):
    """publisher → embedder: the results of this batch are committed to disk."""

    batch_id: str


class Draining(Message):
    """embedder → publisher: this embedder is stopping; while it says so, results may still come."""

    embedder: str
    """Its instance name."""
    boot_id: str
    done: bool = False
    """The last one: everything it had is stored."""


class Published(Message):
    """publisher → fetcher: these tasks are settled."""

    accepted: list[str]
    """The API took the result, or the task is gone from it."""
    dead: list[str] = []
    """The API refused the result: it is a dead letter now, and the task must not be fetched again."""
    dropped: list[str] = []
    """A person dropped the dead letter: the task may be fetched again."""


class Holding(Message):
    """rate_limiter, publisher → fetcher: tasks that the sender is answerable for; renews their leases."""

    stage: str
    ids: list[str]
    embedding: list[str] = []
    """More ids, which a worker has right now: if these get lost, the worker may have died of them."""
    dead: list[str] | None = None
    """Of the publisher: all its dead letters. None: it says nothing about them."""
    inventory_complete: bool = False
    """Of a rate limiter, once in its life: it knows by now what embedders have, so what it does not name it lost."""


class Deferred(Message):
    """rate_limiter → fetcher: given back; they stay pending in the API."""

    ids: list[str]
    until: float
    """Not before this time (seconds since the epoch)."""
    reason: str
    """`quota`, `provider` or `poison` (lost with its worker too often: report it failed)."""
    key: str | None = None
    """If set, nothing of this batch key can be processed before `until` (`*`: of any key)."""


class TokenRequest(Message):
    """fetcher, publisher → token_broker: send me the access token."""

    reply_to: str
    rejected: str = ""
    """Fingerprint of a token that the API refused; it is replaced only if it is still the current one."""


class Token(Message):
    """token_broker → fetcher, publisher: the access token. It exists in memory only."""

    access_token: str
    expires_at: float
    fingerprint: str

    def __repr__(self) -> str:
        """Name it without the secret."""
        return f"Token(fingerprint={self.fingerprint!r}, expires_at={self.expires_at!r})"


class DeadLetters(Message):
    """`python -m stages dead-letters` → publisher: what a person decided about dead letters."""

    replay: list[str] = []
    drop: list[str] = []


class QuotaWindow(Part):
    """One quota window as `/health` shows it."""

    scope: str
    """Empty for the global limits, else the model's name."""
    unit: str
    """tasks, tokens or requests."""
    period: str
    """minute, hour, day, week or month."""
    current: int
    limit: int
    remaining: int
    reset_at: float
    exhausted_at: float | None = None
    """When it will be used up at the present rate; None: not before it resets."""


class Sample(Part):
    """One value of a metric."""

    name: str
    labels: dict[str, str]
    value: float


class Family(Part):
    """One metric with all its samples."""

    name: str
    kind: str
    """counter, gauge or histogram."""
    help: str
    samples: list[Sample]


class Heartbeat(Message):
    """Every process → monitor: each second: I am alive, and this is how I fare."""

    stage: str
    instance: str
    boot_id: str
    pid: int
    time: float
    blockers: list[str]
    """Why no task could pass this process now, in words for `/ready`; empty when one could."""
    facts: dict[str, Any]
    """What `/health` shows of it, by name: the processing mode, the rate-limit strategy, …"""
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
    | Deferred
    | TokenRequest
    | Token
    | DeadLetters
    | Heartbeat
)

encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AnyMessage).decode


def decode(frame: bytes) -> AnyMessage:
    """Decode a frame; raises `msgspec.MsgspecError` and nothing else, whatever is wrong with it."""
    try:
        message: AnyMessage = _decode(frame)
    except (UnicodeDecodeError, RecursionError) as error:  # msgspec passes these on as they are
        raise msgspec.DecodeError(f"not a message: {error}") from error
    return message
