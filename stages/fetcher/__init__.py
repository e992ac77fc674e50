"""fetcher: decides which pending tasks enter, and when to poll the API again.

Comes in: pages of pending tasks over HTTP; `Token`; `Holding` and `Deferred` from the rate limiter; `Holding` and
`Published` from the publisher.
Goes out: `Tasks` to the rate limiter; `Results` (tasks that cannot be processed) to the publisher; `TokenRequest`.
Owns: the leases, what was settled lately, and which tasks are dead letters (LMDB, `STATE_DIR/fetcher`).
Survives: SIGKILL at any moment. Its leases are on disk before their tasks leave; after a restart whoever holds a task
says so, and what nobody holds is fetched again.
"""
