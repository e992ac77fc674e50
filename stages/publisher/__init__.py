"""The publisher decides when and how a result is PATCHed into the API.

Comes in: `Results` from the embedders, and from the fetcher for tasks that cannot be processed; `Draining` from the
embedders; `ApiReachable` from the fetcher; `Token`; `DeadLetters` from the operator's command.
Goes out: `Stored` to the embedder that sent the results; `Published` and `Holding` to the fetcher; `TokenRequest`;
PATCH requests over kept-alive connections.
Owns: the outbox, the dead letters, and what was settled recently (LMDB, `STATE_DIR/publisher`).
Survives: SIGKILL at any moment. `Stored` is sent after the commit. A result that the API has not accepted is sent again
after a restart, byte for byte.
"""
