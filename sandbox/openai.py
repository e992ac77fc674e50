"""A stand-in for OpenAI's `POST /v1/embeddings`, with its limits, its errors and both encodings."""

import base64
from typing import Any, ClassVar

import msgspec

from sandbox.http import Request, Response, json_response
from sandbox.metering import Meter, estimated_tokens
from sandbox.settings import OpenAISettings
from sandbox.stand_in import StandIn
from sandbox.transforms import Matrix, transform_response, transform_vectors
from sandbox.vectors import embed, text_key


class _EmbeddingsBody(msgspec.Struct):
    input: Any
    model: str
    encoding_format: str = "float"
    dimensions: int | None = None
    user: str | None = None


_decode = msgspec.json.Decoder(_EmbeddingsBody).decode


class OpenAIRefusal(Exception):
    """An error response in OpenAI's format."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        kind: str = "invalid_request_error",
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.content = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class OpenAIStandIn(StandIn[OpenAISettings]):
    """`POST /v1/embeddings`, `GET /v1/models`."""

    name: ClassVar[str] = "openai"
    serves_closed_connections: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__(OpenAISettings())
        self.meter = Meter()

    def handle(self, request: Request) -> Response:
        """Call the handler of the route; errors have OpenAI's format."""
        route = (request.method, request.path)
        try:
            self._authenticate(request)
            if route == (b"POST", "/v1/embeddings"):
                return transform_response(request.transform, self._embeddings(request))
            if route == (b"GET", "/v1/models"):
                models = [{"id": name, "object": "model", "owned_by": "sandbox"} for name in self.settings.models]
                return json_response(200, {"object": "list", "data": models})
            raise OpenAIRefusal(404, f"Invalid URL ({request.method.decode()} {request.path})")
        except OpenAIRefusal as refusal:
            return json_response(refusal.status, refusal.content)

    def counters(self) -> dict[str, int]:
        """What was charged."""
        return self.meter.summary()

    def reset(self) -> None:
        """Reset; also forget what was charged."""
        super().reset()
        self.meter = Meter()

    def _authenticate(self, request: Request) -> None:
        scheme, _, key = request.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise OpenAIRefusal(401, "You didn't provide an API key.")
        if key in self.settings.bad_keys:
            raise OpenAIRefusal(401, "Incorrect API key provided.", "invalid_api_key")

    def _embeddings(self, request: Request) -> Response:
        settings = self.settings
        try:
            body = _decode(request.body)
        except msgspec.MsgspecError as error:
            raise OpenAIRefusal(400, f"We could not parse the JSON body of your request: {error}") from error
        if body.model not in settings.models:
            message = f"The model `{body.model}` does not exist or you do not have access to it."
            raise OpenAIRefusal(404, message, "model_not_found")
        texts = [body.input] if isinstance(body.input, str) else body.input
        tokens = self._count_tokens(texts)
        keys = [text_key(body.model, text) for text in texts]
        vectors = embed(keys, self._dimensions(body), settings.noise)
        self.meter.charge(keys, tokens, request.received_at)
        vectors = transform_vectors(request.transform, vectors)
        reverse = request.transform == "shuffled"
        content = _render(vectors, body.model, tokens, as_base64=body.encoding_format == "base64", reverse=reverse)
        return Response(200, content, headers=settings.headers)

    def _count_tokens(self, texts: Any) -> int:
        """The number of tokens in the request; raises `OpenAIRefusal` for whatever OpenAI refuses."""
        settings = self.settings
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
            raise OpenAIRefusal(
                400, "'$.input' is invalid: a string, or a list of strings, none of them empty.", param="input"
            )
        if len(texts) > settings.max_inputs:
            raise OpenAIRefusal(400, f"'$.input' is invalid: at most {settings.max_inputs} inputs.", param="input")
        counts = [estimated_tokens(text) for text in texts]
        if max(counts) > settings.max_input_tokens:
            message = (
                f"This model's maximum context length is {settings.max_input_tokens} tokens, requested {max(counts)}."
            )
            raise OpenAIRefusal(400, message)
        total = sum(counts)
        if total > settings.max_tokens_per_request:
            message = f"Requested {total} tokens, max {settings.max_tokens_per_request} tokens per request"
            raise OpenAIRefusal(400, message, "max_tokens_per_request", "max_tokens_per_request")
        return total

    def _dimensions(self, body: _EmbeddingsBody) -> int:
        full = self.settings.models[body.model]
        if body.dimensions is None or self.settings.ignore_dimensions:
            return full
        if "ada-002" in body.model:
            raise OpenAIRefusal(400, "This model does not support specifying dimensions.", param="dimensions")
        if not 1 <= body.dimensions <= full:
            raise OpenAIRefusal(400, f"Invalid value for 'dimensions': 1 to {full}.", param="dimensions")
        return body.dimensions


def _render(vectors: Matrix, model: str, tokens: int, *, as_base64: bool, reverse: bool) -> bytes:
    """The JSON of the response. Floats that are not finite are written as Python's json module does: NaN."""
    if as_base64:
        rows = [b'"%b"' % base64.b64encode(row.tobytes()) for row in vectors]
    else:
        rows = [str(row.tolist()).replace("nan", "NaN").encode() for row in vectors]
    order = range(len(rows) - 1, -1, -1) if reverse else range(len(rows))
    items = [b'{"object":"embedding","index":%d,"embedding":%b}' % (index, rows[index]) for index in order]
    usage = b'{"prompt_tokens":%d,"total_tokens":%d}' % (tokens, tokens)
    data, name = b",".join(items), msgspec.json.encode(model)
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (data, name, usage)
