"""What a request for embeddings comes to before anything is promised: the tokens of each input."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from inferd.deployments.local_replica import LocalReplica
from inferd.errors import ContextLengthError, InvalidRequestError
from inferd.serving.endpoints.text_admission import check_token_ids
from inferd.tokenizer import Check
from inferd.wire.errors import invalid
from inferd.wire.openai.embeddings import EmbeddingInput, EmbeddingRequest
from inferd.wire.openai.tokenize import MAX_TEXT_BYTES

CODE_COMPUTE = "max_compute_exceeded"


@dataclass(frozen=True, slots=True)
class PreparedInputs:
    """A request in the engine's terms; only its input is held and billed."""

    inputs: tuple[tuple[int, ...], ...]
    max_tokens: int = 0
    clamped_max_tokens: None = None
    in_reasoning: bool = False
    constraint: None = None

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.inputs))


def prepare_inputs(request: EmbeddingRequest, replica: LocalReplica, check: Check | None = None) -> PreparedInputs:
    """Tokenises, on a worker thread.

    Raises:
        InvalidRequestError: `dimensions` above the model's, no token at all, or one that the model does not have.
        ContextLengthError: an input is too long; it is named.
    """
    if request.dimensions is not None and request.dimensions > replica.embedding_size:
        raise InvalidRequestError(
            f"'dimensions' must be at most {replica.embedding_size} for this model, got {request.dimensions}.",
            param="dimensions",
            code="invalid_value",
        )
    return PreparedInputs(tuple(_token_ids(one, replica, check) for one in request.inputs()))


def check_compute(prepared: PreparedInputs, max_compute_ms: int, ms_per_token: float) -> None:
    """Raises InvalidRequestError if the inputs take more compute than a request may have, by a measured rate."""
    most_tokens = max_compute_ms / ms_per_token
    if prepared.num_tokens <= most_tokens:
        return
    num_fitting = sum(num_tokens <= most_tokens for num_tokens in accumulate(map(len, prepared.inputs)))
    what_to_do = f"Send at most the first {num_fitting} of them at once." if num_fitting else "Shorten the first one."
    expected_ms = round(prepared.num_tokens * ms_per_token)
    raise InvalidRequestError(
        f"'input' would take about {expected_ms} ms of compute: it has {len(prepared.inputs)} inputs of "
        f"{prepared.num_tokens} tokens together. A request may have {max_compute_ms} ms. {what_to_do}",
        param="input",
        code=CODE_COMPUTE,
    )


def stopped_error(max_compute_ms: int | None, *, billed: bool) -> InvalidRequestError:
    """Of a request that took twice the compute that it may have."""
    cost = f"{max_compute_ms} ms were billed." if billed else "Nothing was billed."
    return InvalidRequestError(
        f"'input' took more than twice the {max_compute_ms} ms of compute that a request may have, and was stopped. "
        f"{cost} Send fewer or shorter inputs at once.",
        param="input",
        code=CODE_COMPUTE,
    )


def _token_ids(one: EmbeddingInput, replica: LocalReplica, check: Check | None) -> tuple[int, ...]:
    """A text's control tokens stay characters, and what the vocabulary puts around a text is there; token ids are
    taken as they are."""
    if isinstance(one.content, str):
        _refuse_hopeless(one.content, one.param, replica)
        most = replica.max_embedding_tokens
        try:
            token_ids = tuple(replica.tokenizer.encode_document(one.content, max_tokens=most, check=check))
        except InvalidRequestError as error:
            error.param = error.param or one.param
            raise
    else:
        token_ids = one.content
        check_token_ids(token_ids, replica.tokenizer.n_vocab, one.param)
    if not token_ids:
        raise InvalidRequestError(
            f"'{one.param}' comes to no token at all in this model's vocabulary.", param=one.param, code="invalid_value"
        )
    if len(token_ids) > replica.max_embedding_tokens:
        raise _too_long(replica, f"at least {len(token_ids)}", one.param)
    return token_ids


def _refuse_hopeless(text: str, param: str, replica: LocalReplica) -> None:
    """Refuses what is too long before it is tokenised. The vocabularies of embedding models drop white space and take
    any unknown word for one token, so that nothing follows from the length of a text there."""
    n_bytes = len(text.encode())
    if not replica.makes_text:
        if n_bytes > MAX_TEXT_BYTES:
            raise invalid(param, f"'{param}' has {n_bytes} bytes; at most {MAX_TEXT_BYTES} are taken.")
        return
    least_tokens = -(-n_bytes // replica.tokenizer.max_token_bytes)
    if least_tokens > replica.max_embedding_tokens:
        raise _too_long(replica, f"at least {least_tokens}", param)


def _too_long(replica: LocalReplica, n_tokens: str, param: str) -> ContextLengthError:
    return ContextLengthError(
        f"This model's maximum input length is {replica.max_embedding_tokens} tokens. However, your {param} resulted "
        f"in {n_tokens} tokens. Please shorten it.",
        param=param,
    )
