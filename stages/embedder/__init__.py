"""embedder: gets the vectors of one batch after another; any number of these processes, on any machine.

Comes in: `Batch` from the rate limiter, for which it said it has a free slot; `Stored` from the publisher.
Goes out: `Ready` and `Finished` to the rate limiter; `Results` to the publisher; requests to the providers.
Owns: nothing that must survive (its cache of vectors may be deleted at any time).
Survives: the death of every other process: a finished batch is kept, and sent again, until the publisher has stored it.
"""
