"""The rate limiter decides when a waiting task may be spent on a provider, and forms the batches.

Comes in: `Tasks` from the fetcher; `Ready` and `Finished` from the embedders.
Goes out: `Batch` to one named embedder; `ProviderCooldowns` to the embedders; `Holding` and `Deferred` to the fetcher.
Owns: `quota`, the windows of every quota, on disk. A charge is committed before its batch leaves.
Survives: SIGKILL at any moment (at most one batch for each free slot stays charged unused), a clock that steps back,
changed limits, embedders that die of a task, and embedders that die by themselves.
"""
