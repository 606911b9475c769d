"""`POST /v1/embeddings`: the body as a checked, typed request, and the answer."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from inferd.money import format_usd
from inferd.usage import Usage
from inferd.wire.errors import invalid, shorten
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import decode
from inferd.wire.openai.request_fields import TextInput, check_model, check_one_kind, check_tags, inputs_of

MAX_INPUTS = 2048

EncodingFormat = Literal["float", "base64"]


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Request as it came; the properties are valid once `parse_embedding_request` has checked it."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: EncodingFormat | None = None
    dimensions: int | None = None
    user: str | None = None

    def inputs(self) -> list[TextInput]:
        """Return the inputs, at least one; each has a vector of its own."""
        return inputs_of("input", self.input)


class EmbeddingUsage(msgspec.Struct, frozen=True):
    """Billed usage: prompt tokens, none of them cached. `cost` is USD with 9 places; `compute_ms` is there if the
    deployment is billed by time."""

    prompt_tokens: int
    total_tokens: int
    cost: str
    compute_ms: int | msgspec.UnsetType = msgspec.UNSET


class Embedding(msgspec.Struct, frozen=True):
    """Vector of one input, as a list of numbers or as base64 of little-endian 32-bit floats."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


_DECODER = msgspec.json.Decoder(EmbeddingRequest)


def parse_embedding_request(body: bytes, ignored: IgnoredFields | None = None) -> EmbeddingRequest:
    """Decode and check the body of an embeddings request.

    Args:
        ignored: record for fields without effect.

    Raises:
        InvalidRequestError: `param` is the field; checks that depend on the model come later.
    """
    return check_embedding_request(decode(body, _DECODER, ignored or IgnoredFields()))


def check_embedding_request(request: EmbeddingRequest) -> EmbeddingRequest:
    """Return the request unchanged. Raises InvalidRequestError, as `parse_embedding_request` does."""
    check_model(request.model)
    if request.dimensions is not None and request.dimensions < 1:
        raise invalid("dimensions", f"'dimensions' must be at least 1, got {shorten(str(request.dimensions))}.")
    check_tags(request, ("user",))
    _check_input(request.input)
    return request


def encode_embeddings(
    request: EmbeddingRequest,
    vectors: npt.NDArray[np.float32],
    model: str,
    usage: Usage,
    cost_nanousd: int,
    *,
    by_time: bool,
) -> bytes:
    """Return the answer as JSON; `vectors` has shape (inputs, n_embd). Takes milliseconds a megabyte."""
    wanted = truncated(vectors, request.dimensions)
    answer = EmbeddingList(
        data=[Embedding(index, vector) for index, vector in enumerate(_encoded(wanted, request.encoding_format))],
        model=model,
        usage=embedding_usage(usage, cost_nanousd, by_time=by_time),
    )
    return msgspec.json.encode(answer)


def embedding_usage(usage: Usage, cost_nanousd: int, *, by_time: bool) -> EmbeddingUsage:
    """Return the usage as the ledger has it."""
    return EmbeddingUsage(
        prompt_tokens=usage.prompt_tokens,
        total_tokens=usage.total_tokens,
        cost=format_usd(cost_nanousd),
        compute_ms=usage.compute_ms if by_time else msgspec.UNSET,
    )


def truncated(vectors: npt.NDArray[np.float32], dimensions: int | None) -> npt.NDArray[np.float32]:
    """Return the first `dimensions` numbers of each vector, scaled to length 1 (as Matryoshka models are trained)."""
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    kept = vectors[:, :dimensions].astype(np.float64)
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    return (kept / np.where(lengths > 0.0, lengths, 1.0)).astype(np.float32)


def _encoded(vectors: npt.NDArray[np.float32], encoding_format: EncodingFormat | None) -> Iterator[list[float] | str]:
    for vector in vectors:
        if encoding_format == "base64":
            yield base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
        else:
            yield vector.tolist()


def _check_input(content: str | list[str | int | list[int]]) -> None:
    if content in ("", []):
        raise invalid("input", "'input' is empty: send text or token ids.")
    if isinstance(content, str):
        return
    check_one_kind("input", content)
    if isinstance(content[0], int):
        return
    if len(content) > MAX_INPUTS:
        raise invalid("input", f"'input' may hold at most {MAX_INPUTS} inputs, got {len(content)}.")
    for index, item in enumerate(content):
        if not item:
            raise invalid(f"input[{index}]", f"'input[{index}]' is empty: send text or token ids.")
