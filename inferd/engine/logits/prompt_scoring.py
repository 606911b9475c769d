"""Log-probabilities of prompt tokens, from the rows of a step."""

from __future__ import annotations

from inferd.engine.batch import ScheduledChunk
from inferd.engine.logits.probabilities import RowProbabilities
from inferd.engine.runner import Runner
from inferd.logprobs import PromptLogprob


def score_prompt(runner: Runner, chunk: ScheduledChunk, first_row: int) -> tuple[PromptLogprob, ...] | None:
    """Return the log-probabilities that a computed chunk of a sequence to be scored brings, None if the model gave
    none; called before the sequence advances.

    One row at a time: a step's logits are read where llama.cpp keeps them, and nothing as large as a row is kept.

    Args:
        first_row: row of the last step that the chunk begins with.
    """
    sequence = chunk.sequence
    prompt, num_top = sequence.request.prompt, sequence.request.params.prompt_logprobs
    assert num_top is not None, "the request asks for log-probabilities of its prompt"
    # Nothing comes before the first token that could make it probable.
    scored = [PromptLogprob(prompt[0])] if sequence.num_scored_tokens == 0 else []
    for position in sequence.rows_to_score(chunk.num_tokens):
        row = first_row + position - sequence.num_computed_tokens
        probabilities = RowProbabilities(runner.logits(row))
        if not probabilities.is_finite:
            return None
        token_id = prompt[position + 1]
        scored.append(
            PromptLogprob(
                token_id,
                probabilities.logprob(token_id),
                probabilities.rank(token_id),
                tuple(probabilities.top(num_top)),
            )
        )
    return tuple(scored)
