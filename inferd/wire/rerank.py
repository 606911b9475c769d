"""`POST /v1/rerank`: the body as a checked, typed request, and the answer, in the shapes of Jina, Cohere and vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from inferd.wire.errors import invalid, shorten
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import decode
from inferd.wire.openai.embeddings import EmbeddingUsage
from inferd.wire.openai.request_fields import check_model, check_tags

MAX_DOCUMENTS = 2048
MAX_QUERY_BYTES = 2**16
"""The query is tokenised with each document."""
_TEXT_FIELDS = ("text",)
"""Fields of a document that are scored, unless `rank_fields` names others."""

Document = str | dict[str, Any]


class RerankRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Request as it came; the properties are valid once `parse_rerank_request` has checked it."""

    model: str
    query: str
    documents: list[Document]
    top_n: int | None = None
    return_documents: bool | None = None
    rank_fields: list[str] | None = None
    max_tokens_per_doc: int | None = None
    truncate_prompt_tokens: int | None = None
    truncation: bool | None = None
    raw_scores: bool | None = None
    use_activation: bool | None = None
    user: str | None = None

    max_chunks_per_doc: Any = None

    def texts(self) -> list[str]:
        """Return what is scored of each document. Raises InvalidRequestError for an object without a text."""
        return [self._text(index, document) for index, document in enumerate(self.documents)]

    @property
    def has_raw_scores(self) -> bool:
        """Whether scores come as llama.cpp returns them; TEI's and vLLM's names."""
        return self.raw_scores is True or self.use_activation is False

    def max_pair_tokens(self, most: int) -> int:
        """Return the maximum tokens of a query and a document together; `most` is the model's."""
        asked = self.truncate_prompt_tokens
        return most if asked is None or asked < 0 else min(asked, most)

    def _text(self, index: int, document: Document) -> str:
        if isinstance(document, str):
            return document
        fields = self.rank_fields or _TEXT_FIELDS
        values = [(name, document[name]) for name in fields if document.get(name) is not None]
        for name, value in values:
            if not isinstance(value, str):
                param = f"documents[{index}].{shorten(name)}"
                raise invalid(param, f"'{param}' must be a string; only texts are scored.")
        if not values:
            names = " or ".join(f"'{shorten(name)}'" for name in fields[:4])
            raise invalid(
                f"documents[{index}]", f"'documents[{index}]' has no text: send a string, or an object with {names}."
            )
        return "\n".join(value for _, value in values)


class RerankResult(msgspec.Struct, frozen=True, kw_only=True):
    """Score of the document that was the `index`-th of the request."""

    index: int
    relevance_score: float
    document: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class BilledUnits(msgspec.Struct, frozen=True):
    input_tokens: int
    total_tokens: int


class RerankTokens(msgspec.Struct, frozen=True):
    input_tokens: int


class RerankMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Cohere's `meta`."""

    billed_units: BilledUnits
    tokens: RerankTokens
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


class RerankResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Answer; the results are in the order of their scores, the highest first."""

    id: str
    object: Literal["list"] = "list"
    model: str
    results: list[RerankResult]
    usage: EmbeddingUsage
    meta: RerankMeta


_DECODER = msgspec.json.Decoder(RerankRequest)


def parse_rerank_request(body: bytes, ignored: IgnoredFields | None = None) -> RerankRequest:
    """Decode and check the body of a rerank request.

    Args:
        ignored: record for fields without effect.

    Raises:
        InvalidRequestError: `param` is the field; checks that depend on the model come later.
    """
    ignored = ignored or IgnoredFields()
    request = decode(body, _DECODER, ignored)
    check_model(request.model)
    check_tags(request, ("user",))
    if not request.query:
        raise invalid("query", "'query' is empty: send the text that the documents are compared with.")
    num_bytes = len(request.query.encode())
    if num_bytes > MAX_QUERY_BYTES:
        raise invalid("query", f"'query' has {num_bytes} bytes; at most {MAX_QUERY_BYTES} are allowed.")
    if not request.documents:
        raise invalid("documents", "'documents' is empty: send the texts to rank.")
    if len(request.documents) > MAX_DOCUMENTS:
        raise invalid(
            "documents", f"'documents' may hold at most {MAX_DOCUMENTS} documents, got {len(request.documents)}."
        )
    for field, least in (("top_n", 0), ("max_tokens_per_doc", 1), ("truncate_prompt_tokens", -1)):
        value = getattr(request, field)
        if value is not None and value < least:
            raise invalid(field, f"'{field}' must be at least {least}, got {shorten(str(value))}.")
    request.texts()
    if request.max_chunks_per_doc is not None:
        ignored.add("max_chunks_per_doc")
    return request


def encode_rerank(
    request: RerankRequest, scores: Sequence[float], answer_id: str, model: str, usage: EmbeddingUsage, num_cut: int
) -> bytes:
    """Return the answer as JSON.

    Args:
        scores: of the documents, in their order.
        model: name of the deployment.
        num_cut: documents of which only the beginning was scored.
    """
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    has_documents = request.return_documents is not False
    results = [
        RerankResult(
            index=index,
            relevance_score=scores[index],
            document=_returned(request.documents[index]) if has_documents else msgspec.UNSET,
        )
        for index in order[: request.top_n or None]
    ]
    warning = f"{num_cut} of {len(scores)} documents were too long; only their first tokens were scored."
    meta = RerankMeta(
        billed_units=BilledUnits(usage.prompt_tokens, usage.total_tokens),
        tokens=RerankTokens(usage.prompt_tokens),
        warnings=[warning] if num_cut else msgspec.UNSET,
    )
    return msgspec.json.encode(RerankResponse(id=answer_id, model=model, results=results, usage=usage, meta=meta))


def _returned(document: Document) -> dict[str, Any]:
    return {"text": document} if isinstance(document, str) else document
