"""`/v1/rerank` and `/classify`: calls to models with a classification head, scored as embeddings are computed."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Self

import msgspec

from inferd.deployments.deployment import Deployment
from inferd.deployments.local_replica import LocalReplica
from inferd.engine.embeddings.head import Outputs
from inferd.engine.embeddings.pairs import Pair, QueryPairs
from inferd.errors import ContextLengthError, InvalidRequestError
from inferd.serving.completion import Admission, Finished
from inferd.serving.endpoints.embeddings import EmbeddingsWriter, PreparedInputs, input_token_ids, refuse_long
from inferd.serving.endpoints.endpoint import Call, Endpoint
from inferd.tokenizer import Check
from inferd.usage import Usage
from inferd.wire.classify import ClassifyRequest, ClassifyResponse, classifications, parse_classify_request
from inferd.wire.errors import invalid
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.embeddings import embedding_usage
from inferd.wire.rerank import RerankRequest, encode_rerank, parse_rerank_request

MAX_PAIR_TOKENS = 2**20
"""Tokens of all pairs of a request: the query is in each of them, so a small body may come to many."""


class _Scores(Endpoint):
    """Call to a model with a classification head."""

    reads_cache_headers = False

    @classmethod
    def usage_fields(cls, usage: Usage, cost_nanousd: int, *, by_time: bool) -> dict[str, Any]:
        fields: dict[str, Any] = msgspec.to_builtins(embedding_usage(usage, cost_nanousd, by_time=by_time))
        return fields


class Rerank(_Scores):
    """Call of `POST /v1/rerank`."""

    path = "/v1/rerank"
    name = "rerank"

    def __init__(self, asked: RerankRequest) -> None:
        self.asked = asked

    @classmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> Self:
        return cls(parse_rerank_request(body, ignored))

    @property
    def model(self) -> str:
        return self.asked.model

    def check_model(self, deployment: Deployment) -> None:
        deployment.check_ranks()

    def prepare(
        self, number: int, deployment: Deployment, max_output_tokens: int | None = None, *, check: Check | None = None
    ) -> PreparedInputs:
        replica, asked = deployment.replica, self.asked
        most = asked.max_pair_tokens(replica.max_embedding_tokens)
        pairs = _of_query(replica, asked.query, most, check)
        inputs: list[tuple[int, ...]] = []
        num_tokens = num_cut = 0
        for index, text in enumerate(asked.texts()):
            pair = self._pair(pairs, text, f"documents[{index}]", most)
            num_tokens += len(pair.token_ids)
            num_cut += pair.is_cut
            if num_tokens > MAX_PAIR_TOKENS:
                raise invalid(
                    "documents",
                    f"'query' with each of 'documents' comes to more than {MAX_PAIR_TOKENS} tokens. Send at most the "
                    f"first {index} documents at once.",
                )
            inputs.append(pair.token_ids)
        return PreparedInputs(tuple(inputs), replica, "documents", num_cut)

    def _pair(self, pairs: QueryPairs, text: str, param: str, most: int) -> Pair:
        try:
            pair = pairs.pair(text, self.asked.max_tokens_per_doc)
        except InvalidRequestError as error:
            error.param = error.param or param
            raise
        if pair.is_cut and self.asked.truncation is False:
            raise ContextLengthError(
                f"'{param}' is too long: query and document may have {most} tokens together, and a document "
                f"{pairs.num_document} beside this query. Shorten it, or leave out 'truncation'.",
                param=param,
            )
        return pair

    def answer(self, call: Call, admission: Admission, *, streamed: bool) -> EmbeddingsWriter:
        return EmbeddingsWriter(call, partial(_ranked, call, self.asked, admission.num_cut), "documents")


class Classify(_Scores):
    """Call of `POST /classify`."""

    path = "/classify"
    name = "classify"

    def __init__(self, asked: ClassifyRequest) -> None:
        self.asked = asked

    @classmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> Self:
        return cls(parse_classify_request(body, ignored))

    @property
    def model(self) -> str:
        return self.asked.model

    def check_model(self, deployment: Deployment) -> None:
        deployment.check_classifies()

    def prepare(
        self, number: int, deployment: Deployment, max_output_tokens: int | None = None, *, check: Check | None = None
    ) -> PreparedInputs:
        replica = deployment.replica
        inputs = (input_token_ids(one, replica, check, refuse_long) for one in self.asked.inputs())
        return PreparedInputs(tuple(inputs), replica)

    def answer(self, call: Call, admission: Admission, *, streamed: bool) -> EmbeddingsWriter:
        return EmbeddingsWriter(call, partial(_classified, call))


def _of_query(replica: LocalReplica, query: str, most: int, check: Check | None) -> QueryPairs:
    try:
        return replica.pair_format.of_query(query, most, check)
    except InvalidRequestError as error:
        error.param = error.param or "query"
        raise


def _ranked(call: Call, asked: RerankRequest, num_cut: int, end: Finished, outputs: Outputs) -> bytes:
    head = call.deployment.replica.head
    assert head is not None, "the model was checked"
    scores = outputs[:, 0].tolist() if asked.has_raw_scores else head.relevance(outputs).tolist()
    usage = embedding_usage(end.usage, end.cost_nanousd, by_time=end.by_time)
    return encode_rerank(asked, scores, call.answer_id("rerank-"), call.deployment.name, usage, num_cut)


def _classified(call: Call, end: Finished, outputs: Outputs) -> bytes:
    head = call.deployment.replica.head
    assert head is not None, "the model was checked"
    response = ClassifyResponse(
        id=call.answer_id("classify-"),
        created=int(time.time()),
        model=call.deployment.name,
        data=classifications(head.labels, head.probabilities(outputs)),
        usage=embedding_usage(end.usage, end.cost_nanousd, by_time=end.by_time),
    )
    return msgspec.json.encode(response)
