"""fetcher: decides which pending tasks are leased, and when to poll the API.

Receives: pages of pending tasks over HTTP; `Token`; `Holding` and `Deferred` from the rate limiter; `Holding` and
`Published` from the publisher.
Sends: `Tasks` to the rate limiter; `Results` (tasks that cannot be processed) and `ApiReachable` to the publisher;
`TokenRequest`; claims over HTTP (CLAIM_TASKS).
Owns: the leases, the recently settled tasks, and which tasks are dead letters (LMDB, `STATE_DIR/fetcher`).
Survives: SIGKILL at any moment. A lease is on disk before its task leaves. After a restart each holder lists its tasks,
and a task that no holder lists is fetched again.
"""
