"""`POST /api/embed` and the older `/api/embeddings`: the bodies, and the answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from inferd.wire.field_names import OWN_NAMES, FieldNames
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import decode
from inferd.wire.ollama.options import Options, record_all_options
from inferd.wire.openai.embeddings import EmbeddingRequest, EmbeddingUsage, check_embedding_request, truncated
from inferd.wire.openai.request_fields import check_model


class OllamaEmbedRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/embed`. Without an input it asks for the model to be loaded."""

    model: str
    input: str | list[str] | None = None
    dimensions: int | None = None
    options: Options | None = None

    truncate: bool | None = None

    # Known, but without effect: models stay loaded.
    keep_alive: Any = None


class OllamaEmbeddingsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/embeddings`. Without a prompt it asks for the model to be loaded."""

    model: str
    prompt: str | None = None
    options: Options | None = None
    keep_alive: Any = None


@dataclass(frozen=True, slots=True)
class OllamaEmbedAsk:
    """One request for vectors, translated.

    Attributes:
        request: the equivalent request; its input is "" if there is nothing to embed.
        names: map from its fields to those of the body.
        truncates: whether the end of an input that is too long is left out, and not refused.
    """

    request: EmbeddingRequest
    names: FieldNames = OWN_NAMES
    truncates: bool = False

    @property
    def is_load(self) -> bool:
        """True if the request asks only for the model to be loaded; then it is not to be served."""
        return not self.request.input


class OllamaEmbedResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Vectors of length 1. Durations are in nanoseconds; `usage` is what was billed, of inferd only."""

    model: str
    embeddings: list[list[float]]
    total_duration: int | msgspec.UnsetType = msgspec.UNSET
    load_duration: int | msgspec.UnsetType = msgspec.UNSET
    prompt_eval_count: int | msgspec.UnsetType = msgspec.UNSET
    usage: EmbeddingUsage | msgspec.UnsetType = msgspec.UNSET


class OllamaEmbeddingsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Vector of length 1; `usage` is what was billed, of inferd only."""

    embedding: list[float]
    usage: EmbeddingUsage | msgspec.UnsetType = msgspec.UNSET


_EMBED_DECODER = msgspec.json.Decoder(OllamaEmbedRequest)
_EMBEDDINGS_DECODER = msgspec.json.Decoder(OllamaEmbeddingsRequest)


def parse_ollama_embed(body: bytes, ignored: IgnoredFields | None = None) -> OllamaEmbedAsk:
    """Decode and check the body of a request for vectors.

    Args:
        ignored: record for fields without effect.

    Raises:
        InvalidRequestError: `param` is the field of the body.
    """
    ignored = ignored or IgnoredFields()
    asked = decode(body, _EMBED_DECODER, ignored)
    record_all_options(asked.options, ignored)
    if asked.keep_alive is not None:
        ignored.add("keep_alive")
    dimensions = asked.dimensions if asked.dimensions is None or asked.dimensions > 0 else None
    if asked.dimensions and dimensions is None:
        ignored.add("dimensions", "must be at least 1")
    inputs: str | list[str | int | list[int]] = [*asked.input] if isinstance(asked.input, list) else asked.input or ""
    ask = _checked(EmbeddingRequest(model=asked.model, input=inputs or "", dimensions=dimensions))
    return replace(ask, truncates=asked.truncate is not False)


def parse_ollama_embeddings(body: bytes, ignored: IgnoredFields | None = None) -> OllamaEmbedAsk:
    """Decode and check the body of a request for one vector, as `parse_ollama_embed` does."""
    ignored = ignored or IgnoredFields()
    asked = decode(body, _EMBEDDINGS_DECODER, ignored)
    record_all_options(asked.options, ignored)
    if asked.keep_alive is not None:
        ignored.add("keep_alive")
    return _checked(EmbeddingRequest(model=asked.model, input=asked.prompt or ""), FieldNames({"input": "prompt"}))


def _checked(request: EmbeddingRequest, names: FieldNames = OWN_NAMES) -> OllamaEmbedAsk:
    if not request.input:
        check_model(request.model)
        return OllamaEmbedAsk(request, names)
    with names.restored():
        return OllamaEmbedAsk(check_embedding_request(request), names)


def embedding_lists(request: EmbeddingRequest, vectors: npt.NDArray[np.float32]) -> list[list[float]]:
    """Return the vectors, of the dimensions that were asked for. Takes milliseconds a megabyte."""
    lists: list[list[float]] = truncated(vectors, request.dimensions).tolist()
    return lists
