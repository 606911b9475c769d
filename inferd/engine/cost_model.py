"""Cost model of steps, learned while running, and the speed that follows from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_FORGET = 0.98
"""Weight of the past at each new step: the last hundred or so count."""
_SCALE = np.array([1.0, 1e-2, 1e-2, 1e-5, 1e-2])
"""Brings the features to about 1: a constant, hundreds of rows, hundreds of thousands of cells."""
_PRIOR_MS = (1.0, 100.0, 100.0, 0.0, 100.0)
"""Per scaled feature. Deliberately slow (1 ms a row), so that the first steps are small."""
_FLOOR_MS = 0.1
_INERTIA = 1e-3
"""Weight of the current value, in observations; a weight that no recent step depends on keeps its value."""
_MAX_SURPRISE = 8.0
_NUM_CREDULOUS = 10
"""Observations that count in full. A later step that takes more than _MAX_SURPRISE times the expected duration is
clipped: something else held it up (a suspended process)."""
_MAX_UNLEARNED = 32
_PREFILL_ROWS = 256
_MS_PER_S = 1000.0
_MIN_STEP_MS = 0.01


class CostModel:
    """time = a + b x prefill rows + c x decode rows + d x sum over rows of the cells they attend to + e x prefill rows
    whose log-probabilities are wanted: their logits are computed and read.

    Least squares of the relative error with exponential forgetting; no weight is negative. Belongs to the engine
    thread, which does not compute while the model learns: it learns before a prediction, and otherwise from
    _MAX_UNLEARNED steps at once.
    """

    def __init__(self) -> None:
        self._weights: npt.NDArray[np.float64] = np.array(_PRIOR_MS)
        self._information: npt.NDArray[np.float64] = np.zeros((len(_PRIOR_MS), len(_PRIOR_MS)))
        self._target: npt.NDArray[np.float64] = np.zeros(len(_PRIOR_MS))
        self._num_learned = 0
        self._unlearned: list[tuple[float, ...]] = []

    def observe(self, *, prefill_rows: int, decode_rows: int, cells: int, scored_rows: int = 0, step_ms: float) -> None:
        """Record the duration of a step; `cells` is the sum over its rows. A duration that is not positive (the clock
        was set back) is ignored."""
        if step_ms <= 0.0:
            return
        self._unlearned.append((1.0, prefill_rows, decode_rows, cells, scored_rows, step_ms))
        if len(self._unlearned) >= _MAX_UNLEARNED or self._num_learned < _NUM_CREDULOUS:
            self._learn()

    def step_ms(self, *, prefill_rows: int, decode_rows: int, cells: int, scored_rows: int = 0) -> float:
        """Return the expected duration of a step; never negative."""
        if self._unlearned:
            self._learn()
        a, b, c, d, e = (self._weights * _SCALE).tolist()
        return float(a + b * prefill_rows + c * decode_rows + d * cells + e * scored_rows)

    def _learn(self) -> None:
        *columns, taken_ms = np.array(self._unlearned).T
        features = np.array(columns).T * _SCALE
        unit_ms = np.maximum(taken_ms, 1.0)
        if self._num_learned >= _NUM_CREDULOUS:
            unit_ms = np.maximum(features @ self._weights, 1.0)
            taken_ms = np.minimum(taken_ms, _MAX_SURPRISE * unit_ms)
        forgetting = _FORGET ** np.arange(len(features))[::-1]
        weighted = features * (forgetting / unit_ms**2)[:, np.newaxis]
        past = _FORGET ** len(features)
        self._information = past * self._information + weighted.T @ features
        self._target = past * self._target + weighted.T @ taken_ms
        self._num_learned += len(features)
        self._unlearned.clear()
        self._solve()

    def _solve(self) -> None:
        """Fit the weights. A weight that would be negative is set to zero, and the others are fitted without it."""
        inertia = _INERTIA / np.maximum(self._weights, _FLOOR_MS) ** 2
        matrix = self._information + np.diag(inertia)
        target = self._target + inertia * self._weights
        free = np.ones(len(_PRIOR_MS), dtype=np.bool_)
        while free.any():
            solved = np.linalg.solve(matrix[np.ix_(free, free)], target[free])
            if (solved >= 0.0).all():
                self._weights = np.zeros(len(_PRIOR_MS))
                self._weights[free] = solved
                return
            free[np.flatnonzero(free)[solved < 0.0]] = False


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second of all requests together.

    Attributes:
        embedding_ms_per_token: compute time that a token of an embedding input is charged; None if not measured yet.
    """

    prompt_tokens_per_s: float
    output_tokens_per_s: float
    embedding_ms_per_token: float | None = None

    @classmethod
    def expected(cls, cost_model: CostModel, *, num_decodes: int, cells: int) -> Speed:
        """Return the speed of a step of prefill alone, and of a step of `num_decodes` decodes (at least one is
        assumed) that attend to `cells` together."""
        triangle = _PREFILL_ROWS * (_PREFILL_ROWS + 1) // 2
        prefill_ms = cost_model.step_ms(prefill_rows=_PREFILL_ROWS, decode_rows=0, cells=triangle)
        num_decodes = max(1, num_decodes)
        decode_ms = cost_model.step_ms(prefill_rows=0, decode_rows=num_decodes, cells=cells)
        return cls(
            prompt_tokens_per_s=_PREFILL_ROWS * _MS_PER_S / max(prefill_ms, _MIN_STEP_MS),
            output_tokens_per_s=num_decodes * _MS_PER_S / max(decode_ms, _MIN_STEP_MS),
        )
