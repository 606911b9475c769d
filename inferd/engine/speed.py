"""How fast an engine is just now, by its own model of step times."""

from __future__ import annotations

from dataclasses import dataclass

from inferd.engine.cost_model import CostModel

_PREFILL_ROWS = 256
_MS_PER_S = 1000.0
_MIN_STEP_MS = 0.01


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second, of all requests together.

    Attributes:
        embedding_ms_per_token: compute that a token of an input for a vector is charged; None: not measured yet.
    """

    prompt_tokens_per_s: float
    output_tokens_per_s: float
    embedding_ms_per_token: float | None = None

    @classmethod
    def expected(cls, cost_model: CostModel, *, n_decodes: int, cells: int) -> Speed:
        """Of a step of prefill alone, and of a decode step of so many rows that attend to `cells` together."""
        triangle = _PREFILL_ROWS * (_PREFILL_ROWS + 1) // 2
        prefill_ms = cost_model.step_ms(prefill_rows=_PREFILL_ROWS, decode_rows=0, cells=triangle)
        n_decodes = max(1, n_decodes)
        decode_ms = cost_model.step_ms(prefill_rows=0, decode_rows=n_decodes, cells=cells)
        return cls(
            prompt_tokens_per_s=_PREFILL_ROWS * _MS_PER_S / max(prefill_ms, _MIN_STEP_MS),
            output_tokens_per_s=n_decodes * _MS_PER_S / max(decode_ms, _MIN_STEP_MS),
        )
