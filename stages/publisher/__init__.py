"""publisher: decides when and how a result is PATCHed into the API.

Comes in: `Results` from the embedders (and, for tasks that cannot be processed, from the fetcher); `Token`;
`DeadLetters` from the operator's command.
Goes out: `Stored` to the embedder that sent the results; `Published` and `Holding` to the fetcher; `TokenRequest`;
PATCH requests over kept-alive connections.
Owns: the outbox, the dead letters, and what was settled lately (LMDB, `STATE_DIR/publisher`).
Survives: SIGKILL at any moment. `Stored` is said after the commit, and what the API has not accepted is sent again
after a restart, byte for byte.
"""
