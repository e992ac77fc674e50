"""How many numbers the vectors of well-known models have. This is a fact of a model, not what a server happens to send.

Sources: OpenAI's API reference for its models; the model cards on Hugging Face and the library of Ollama
(https://ollama.com/search?c=embedding) for the others. A name stands here only if it cannot mean a model of another
size: a family with several sizes has one entry for each of its tags. Ollama's default tag is that of the plain name.
"""

from __future__ import annotations

from collections.abc import Mapping

OPENAI: Mapping[str, int] = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
OLLAMA: Mapping[str, int] = {
    "nomic-embed-text": 768,
    "nomic-embed-text-v2-moe": 768,
    "mxbai-embed-large": 1024,
    "all-minilm": 384,
    "bge-m3": 1024,
    "bge-large": 1024,
    "snowflake-arctic-embed2": 1024,
    "embeddinggemma": 768,
    "paraphrase-multilingual": 768,
}
"""All tags of these names have the same length."""
OLLAMA_SIZES: Mapping[str, Mapping[str, int]] = {
    "snowflake-arctic-embed": {
        "": 1024, "latest": 1024, "22m": 384, "xs": 384, "33m": 384, "s": 384, "110m": 768, "m": 768, "137m": 768,
        "335m": 1024, "l": 1024,
    },
    "qwen3-embedding": {"": 4096, "latest": 4096, "0.6b": 1024, "4b": 2560, "8b": 4096},
    "granite-embedding": {"": 384, "latest": 384, "30m": 384, "278m": 768},
}  # fmt: skip
"""Tag, up to its first hyphen (`22m-l6-v2-fp16` → `22m`) → length; the tag of a plain name is empty."""
HUGGING_FACE: Mapping[str, int] = {
    "baai/bge-m3": 1024,
    "baai/bge-small-en-v1.5": 384,
    "baai/bge-base-en-v1.5": 768,
    "baai/bge-large-en-v1.5": 1024,
    "intfloat/multilingual-e5-small": 384,
    "multilingual-e5-small": 384,
    "intfloat/multilingual-e5-base": 768,
    "multilingual-e5-base": 768,
    "intfloat/multilingual-e5-large": 1024,
    "multilingual-e5-large": 1024,
    "mixedbread-ai/mxbai-embed-large-v1": 1024,
    "nomic-ai/nomic-embed-text-v1.5": 768,
    "qwen/qwen3-embedding-0.6b": 1024,
    "qwen/qwen3-embedding-4b": 2560,
    "qwen/qwen3-embedding-8b": 4096,
    "sentence-transformers/all-minilm-l6-v2": 384,
    "sentence-transformers/all-mpnet-base-v2": 768,
    "snowflake/snowflake-arctic-embed-m": 768,
    "snowflake/snowflake-arctic-embed-l": 1024,
}
"""Names as servers of models from Hugging Face use them, in lower case."""


def known_length(model: str) -> int | None:
    """The length of the model's vectors; None if the name does not tell. Case does not matter."""
    name = model.lower()
    plain = OPENAI.get(name) or HUGGING_FACE.get(name)
    if plain is not None:
        return plain
    family, _, tag = name.removeprefix("library/").partition(":")
    sizes = OLLAMA_SIZES.get(family)
    return OLLAMA.get(family) if sizes is None else sizes.get(tag.partition("-")[0])
