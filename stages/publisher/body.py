"""The body of a PATCH. The same result always gives the same bytes, also after a restart.

Floats are written in their shortest float32 form, `0.1` and not `0.10000000149011612`: 3,072 dimensions are 38 to
43 kB, and NestJS refuses bodies over 100 KiB by default.
"""

from __future__ import annotations

import numpy as np
import orjson

from common.wire.messages import Result

SUCCEEDED = "succeeded"
FAILED = "failed"
_FLOAT32 = np.dtype("<f4")


def state_of(result: Result) -> str:
    """The task's new state."""
    return SUCCEEDED if result.failure is None else FAILED


def body(result: Result) -> bytes:
    """The JSON `{"state": …, "result": …}`: a list of floats, a document, or the error."""
    if result.failure is not None:
        error = {"code": result.failure.code, "message": result.failure.message}
        return orjson.dumps({"state": FAILED, "result": {"error": error}})
    if result.vector:
        rendered = orjson.dumps(np.frombuffer(result.vector, _FLOAT32), option=orjson.OPT_SERIALIZE_NUMPY)
    else:
        rendered = result.document
    return b'{"state":"succeeded","result":' + rendered + b"}"
