"""`POST /v1/embeddings`: the body as a checked, typed request, and the answer."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from inferd.errors import InvalidRequestError
from inferd.money import format_usd
from inferd.price import ServiceTier
from inferd.usage import Usage
from inferd.wire.errors import invalid, shorten
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import decode

INPUTS_MAX = 2048
TAG_CHARACTERS_MAX = 512

EncodingFormat = Literal["float", "base64"]


@dataclass(frozen=True, slots=True)
class EmbeddingInput:
    """A text or token ids; `param`: where it stands in the request."""

    content: str | tuple[int, ...]
    param: str


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request as it came, once `parse_embedding_request` has checked it."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: EncodingFormat | None = None
    dimensions: int | None = None
    user: str | None = None

    def inputs(self) -> list[EmbeddingInput]:
        """At least one; each is answered by a vector of its own."""
        if isinstance(self.input, str):
            return [EmbeddingInput(self.input, "input")]
        if isinstance(self.input[0], int):
            return [EmbeddingInput(_token_ids(self.input), "input")]
        return [
            EmbeddingInput(_token_ids(item) if isinstance(item, list) else str(item), f"input[{index}]")
            for index, item in enumerate(self.input)
        ]

    @property
    def n_choices(self) -> int:
        return 1

    @property
    def tier(self) -> ServiceTier:
        """This endpoint of OpenAI's has no others."""
        return ServiceTier.DEFAULT


class EmbeddingUsage(msgspec.Struct, frozen=True):
    """What was billed: input, none of it cached. `cost` is USD with 9 places; `compute_ms` is there where that is what
    costs."""

    prompt_tokens: int
    total_tokens: int
    cost: str
    compute_ms: int | msgspec.UnsetType = msgspec.UNSET


class Embedding(msgspec.Struct, frozen=True):
    """`embedding` is a list of numbers, or base64 of little-endian 32-bit floats."""

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
    """Decoded and checked; `ignored` takes down what has no effect. Raises InvalidRequestError with `param` naming the
    field; what depends on the model comes later."""
    request = decode(body, _DECODER, ignored or IgnoredFields())
    if not request.model:
        raise invalid("model", "'model' is empty: name a model, see GET /v1/models.")
    if request.dimensions is not None and request.dimensions < 1:
        raise invalid("dimensions", f"'dimensions' must be at least 1, got {shorten(str(request.dimensions))}.")
    for field in ("model", "user"):
        text = getattr(request, field) or ""
        if len(text) > TAG_CHARACTERS_MAX or "\0" in text:
            raise invalid(field, f"'{field}' may have at most {TAG_CHARACTERS_MAX} characters, and no NUL.")
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
    """The answer; `vectors` has shape (inputs, n_embd). Takes milliseconds a megabyte."""
    wanted = _truncated(vectors, request.dimensions)
    answer = EmbeddingList(
        data=[Embedding(index, vector) for index, vector in enumerate(_encoded(wanted, request.encoding_format))],
        model=model,
        usage=embedding_usage(usage, cost_nanousd, by_time=by_time),
    )
    return msgspec.json.encode(answer)


def embedding_usage(usage: Usage, cost_nanousd: int, *, by_time: bool) -> EmbeddingUsage:
    """The usage as the ledger has it."""
    return EmbeddingUsage(
        prompt_tokens=usage.prompt_tokens,
        total_tokens=usage.total_tokens,
        cost=format_usd(cost_nanousd),
        compute_ms=usage.compute_ms if by_time else msgspec.UNSET,
    )


def _truncated(vectors: npt.NDArray[np.float32], dimensions: int | None) -> npt.NDArray[np.float32]:
    """The first numbers of each vector, which has length 1 again (as Matryoshka models are trained for)."""
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
    kinds = {type(item) for item in content}
    if len(kinds) > 1:
        raise invalid("input", "'input' mixes kinds: send strings, token ids, or lists of token ids.")
    if kinds == {int}:
        return
    if len(content) > INPUTS_MAX:
        raise invalid("input", f"'input' may hold at most {INPUTS_MAX} inputs, got {len(content)}.")
    for index, item in enumerate(content):
        if not item:
            raise InvalidRequestError(f"'input[{index}]' is empty.", param=f"input[{index}]", code="invalid_value")


def _token_ids(items: list[Any]) -> tuple[int, ...]:
    return tuple(items)
