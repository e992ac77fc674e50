"""Pay for each text once: reuse vectors of earlier batches, and of those that other threads or processes embed now.

    reuse.py          single-flight over the threads of this process and the embedders of this machine
    vector_cache.py   the vectors, and the claims of running batches, in LMDB
    cache_folder.py   the folder of the cache: who may open, write and discard it

A caller asks `recall` for the keys of its texts. It embeds the texts of `mine`, calls `publish` with what it got and
`release` with `mine`, and only then calls `await_others`: a batch never waits while others wait for it, so no two can
wait for each other. Reuse never calls its caller.
"""

from stages.embedder.reuse.reuse import InFlight, Outcome, Recall, Reuse
from stages.embedder.reuse.vector_cache import keys_of

__all__ = ["InFlight", "Outcome", "Recall", "Reuse", "keys_of"]
