"""An embedder gets the vectors of one batch after another. Any number of embedders may run.

Comes in: `Batch` and `ProviderCooldowns` from the rate limiter; `Stored` from the publisher.
Goes out: `Ready` and `Finished` to the rate limiter; `Results` and `Draining` to the publisher; requests to providers.
Owns: nothing that must survive (its cache of vectors may be deleted at any time).
Survives: the death of every other process. A finished batch is kept, and sent again, until the publisher has stored it.
"""
