"""What one prompt of a text completion comes to: its tokens."""

from __future__ import annotations

from collections.abc import Sequence

from inferd.deployments.local_replica import LocalReplica
from inferd.errors import ContextLengthError, InvalidRequestError
from inferd.tokenizer import Check, Segment
from inferd.wire.openai.text_completions import TextPrompt


def encoded(
    replica: LocalReplica,
    segments: Sequence[Segment],
    param: str,
    check: Check | None,
    *,
    add_bos: bool = True,
    room: int = 1,
) -> tuple[int, ...]:
    """Return the tokens of a prompt, which is not tokenised further than a context is long.

    Args:
        room: tokens that the context must have beside it.

    Raises:
        InvalidRequestError: it takes too much time, or the model's vocabulary cannot write it.
        ContextLengthError: it is too long.
    """
    most = replica.max_context - room
    try:
        token_ids = tuple(replica.tokenizer.encode(segments, add_bos=add_bos, max_tokens=most, check=check))
    except InvalidRequestError as error:
        error.param = error.param or param
        raise
    if len(token_ids) > most:
        raise too_long(replica.max_context, f"at least {len(token_ids)}", param)
    return token_ids


def prompt_tokens(prompt: TextPrompt, replica: LocalReplica, check: Check | None = None) -> tuple[int, ...]:
    """Text is the model's own words, so control tokens in it are read as such, and BOS comes first if the vocabulary
    asks for it and the text does not bring it. Token ids are taken as they are.

    Raises:
        InvalidRequestError: no token at all, or one that the model does not have.
        ContextLengthError: it is certainly too long.
    """
    if isinstance(prompt.content, str):
        least_tokens = -(-len(prompt.content.encode()) // replica.tokenizer.max_token_bytes)
        if least_tokens >= replica.max_context:
            raise too_long(replica.max_context, f"at least {least_tokens}", prompt.param)
        token_ids = encoded(replica, [Segment(prompt.content, special=True)], prompt.param, check)
    else:
        token_ids = prompt.content
        check_token_ids(token_ids, replica.tokenizer.n_vocab, prompt.param)
    if not token_ids:
        raise InvalidRequestError(
            f"'{prompt.param}' comes to no token at all in this model's vocabulary.",
            param=prompt.param,
            code="invalid_value",
        )
    return token_ids


def check_token_ids(token_ids: Sequence[int], n_vocab: int, param: str) -> None:
    """Raises InvalidRequestError for one that the model does not have."""
    for token_id in token_ids:
        if not 0 <= token_id < n_vocab:
            raise InvalidRequestError(
                f"'{param}' holds token {token_id}; this model has tokens 0 to {n_vocab - 1}.",
                param=param,
                code="invalid_value",
            )


def too_long(max_context: int, n_tokens: str, param: str) -> ContextLengthError:
    return ContextLengthError(
        f"This model's maximum context length is {max_context} tokens, and at least one of them is needed for the "
        f"completion. However, your {param} resulted in {n_tokens} tokens. Please shorten it.",
        param=param,
    )
