"""The rate limiter: decides when a waiting task may be spent on a provider, and forms the batches.

Comes in: `Tasks` from the fetcher; `Ready` and `Finished` from the embedders.
Goes out: `Batch` to one named embedder; `Holding` and `Deferred` to the fetcher.
Owns: `quota`, the windows of every quota, on disk: a charge is committed before its batch leaves.
Survives: being killed (at most one batch stays charged unused), a clock that steps back, changed limits; embedders that
die of a task, and those that die by themselves.
"""
