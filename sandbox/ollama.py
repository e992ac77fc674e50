"""A stand-in for Ollama: `POST /api/embed`, `GET /api/tags`, `POST /api/pull`."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, ClassVar

import msgspec
import orjson

from sandbox.http import Request, Response, json_response
from sandbox.metering import Meter, estimated_tokens
from sandbox.settings import OllamaSettings
from sandbox.stand_in import StandIn
from sandbox.transforms import transform_response, transform_vectors
from sandbox.vectors import embed, text_key

_BUSY = "server busy, please try again.  maximum pending requests exceeded"  # two spaces, as in its source
_PLAIN = "text/plain; charset=utf-8"
_LAYER = "sha256:970aa74c0a90ef7482477cf803618e776e173c007bf957f635f1015bfcfef0e6"
_LAYER_BYTES = 274_290_656


class _EmbedBody(msgspec.Struct):
    model: str
    input: str | list[str]
    truncate: bool = True
    dimensions: int | None = None
    keep_alive: Any = None
    options: Any = None


class _PullBody(msgspec.Struct):
    model: str = ""
    name: str = ""
    stream: bool = True
    insecure: bool = False


def _error(status: int, message: str) -> Response:
    return json_response(status, {"error": message})


def _tagged(model: str) -> str:
    return model if ":" in model else f"{model}:latest"


class OllamaStandIn(StandIn[OllamaSettings]):
    """The three routes above, and `GET /`, which reports that Ollama is running."""

    name: ClassVar[str] = "ollama"
    serves_closed_connections: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__(OllamaSettings())
        self.meter = Meter()
        self._pulled: dict[str, int] = {}
        self._pulls = 0
        self._pulling = 0
        self._pulling_max = 0

    @property
    def _models(self) -> dict[str, int]:
        return self.settings.models | self._pulled

    def handle(self, request: Request) -> Response:
        """Call the handler of the route; errors have Ollama's format."""
        try:
            match (request.method, request.path):
                case (b"POST", "/api/embed"):
                    response = self._embed(request)
                case (b"POST", "/api/pull"):
                    response = self._pull(request)
                case (b"GET", "/api/tags"):
                    models = [{"name": name, "model": name} for name in self._models]
                    response = json_response(200, {"models": models})
                case (b"GET", "/"):
                    response = Response(200, b"Ollama is running", _PLAIN)
                case _:
                    response = Response(404, b"404 page not found", _PLAIN)
        except msgspec.MsgspecError as error:
            return _error(400, str(error))
        return response

    def counters(self) -> dict[str, int]:
        """What was embedded and pulled."""
        pulls = {"pulls": self._pulls, "pulling": self._pulling, "pulling_max": self._pulling_max}
        return {**self.meter.summary(), **pulls}

    def reset(self) -> None:
        """Reset; also forget what was embedded and pulled."""
        super().reset()
        self.meter = Meter()
        self._pulled = {}
        self._pulls = 0
        self._pulling_max = self._pulling

    def _refusal(self, body: _EmbedBody, texts: list[str], counts: list[int]) -> Response | None:
        settings = self.settings
        if settings.max_under_way and self.traffic.under_way > settings.max_under_way:
            return _error(503, _BUSY)
        if _tagged(body.model) not in self._models:
            return _error(404, f'model "{body.model}" not found, try pulling it first')
        if settings.max_inputs and len(texts) > settings.max_inputs:
            return _error(400, "too many inputs")
        if not body.truncate and max(counts, default=0) > settings.context_tokens:
            return _error(400, "the input length exceeds the context length")
        return None

    def _embed(self, request: Request) -> Response:
        settings, body = self.settings, msgspec.json.decode(request.body, type=_EmbedBody)
        texts = [body.input] if isinstance(body.input, str) else body.input
        counts = [estimated_tokens(text) for text in texts]
        refusal = self._refusal(body, texts, counts)
        if refusal is not None:
            return refusal
        dimensions = self._models[_tagged(body.model)]
        if texts in ([], [""]):  # Ollama answers a single empty string with 200 and no embedding.
            return json_response(200, {"model": body.model, "embeddings": []})
        tokens = sum(min(count, settings.context_tokens) for count in counts)
        keys = [text_key(_tagged(body.model), text) for text in texts]
        vectors = embed(keys, min(body.dimensions or dimensions, dimensions), settings.noise)
        self.meter.charge(keys, tokens, request.received_at)
        vectors = transform_vectors(request.transform, vectors)
        head = {"model": body.model, "total_duration": 1_000_000, "load_duration": 1000, "prompt_eval_count": tokens}
        if request.transform == "nan":  # orjson would write null
            rows = str(vectors.tolist()).replace("nan", "NaN").encode()
        else:
            rows = orjson.dumps(vectors, option=orjson.OPT_SERIALIZE_NUMPY)
        content = msgspec.json.encode(head)[:-1] + b',"embeddings":' + rows + b"}"
        return transform_response(request.transform, Response(200, content))

    def _pull(self, request: Request) -> Response:
        body = msgspec.json.decode(request.body, type=_PullBody)
        model = body.model or body.name
        if not model:
            return _error(400, "invalid model name")
        self._pulls += 1
        lines = self._progress(_tagged(model))
        stream = lines if body.stream else _last(lines)
        return Response(200, content_type="application/x-ndjson" if body.stream else "application/json", stream=stream)

    async def _progress(self, model: str) -> AsyncGenerator[bytes, None]:
        """The lines of a pull; an error comes after the 200, as with the real Ollama."""
        self._pulling += 1
        self._pulling_max = max(self._pulling_max, self._pulling)
        settings = self.settings
        try:
            yield _line({"status": "pulling manifest"})
            if model not in settings.pullable:
                yield _line({"error": "pull model manifest: file does not exist"})
                return
            for step in range(1, settings.pull_steps + 1):
                await asyncio.sleep(self.settings.pull_seconds / settings.pull_steps)
                if settings.pull_error is not None and step > settings.pull_steps // 2:
                    yield _line({"error": settings.pull_error})
                    return
                done = _LAYER_BYTES * step // settings.pull_steps
                layer = {"digest": _LAYER, "total": _LAYER_BYTES, "completed": done}
                yield _line({"status": f"pulling {_LAYER[7:19]}", **layer})
            self._pulled[model] = settings.pullable[model]
            for status in ("verifying sha256 digest", "writing manifest", "success"):
                yield _line({"status": status})
        finally:
            self._pulling -= 1


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"


async def _last(lines: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Only the last line: the response to `stream: false`."""
    yield [line async for line in lines][-1]
