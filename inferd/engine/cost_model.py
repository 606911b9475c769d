"""How long a step will take, learned while running."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_FORGET = 0.99
"""Weight of the past at each new step: the last few hundred steps count."""
_MS_PER_ROW_PRIOR = 1.0
_PRIOR_VARIANCE = 1e3
_KILOCELLS = 1e-3


class CostModel:
    """time = a + b x prefill rows + c x decode rows + d x sum over rows of the cells they attend to.

    Recursive least squares with forgetting (Haykin, Adaptive Filter Theory, ch. 13). Belongs to the engine thread.
    """

    def __init__(self) -> None:
        # The prior is deliberately slow: the first steps are small, and soon it knows better.
        self._weights: npt.NDArray[np.float64] = np.array([1.0, _MS_PER_ROW_PRIOR, _MS_PER_ROW_PRIOR, 0.0])
        self._covariance: npt.NDArray[np.float64] = np.eye(4) * _PRIOR_VARIANCE
        self._num_observed = 0

    def observe(self, *, prefill_rows: int, decode_rows: int, cells: int, step_ms: float) -> None:
        """Learns from a step that took `step_ms`; `cells` is the sum over its rows."""
        features = _features(prefill_rows, decode_rows, cells)
        gain = self._covariance @ features / (_FORGET + features @ self._covariance @ features)
        self._weights += gain * (step_ms - features @ self._weights)
        self._covariance = (self._covariance - np.outer(gain, features @ self._covariance)) / _FORGET
        # What is not excited for long (no prefill for minutes) must not grow without bound.
        np.clip(self._covariance, -_PRIOR_VARIANCE, _PRIOR_VARIANCE, out=self._covariance)
        self._num_observed += 1

    def step_ms(self, *, prefill_rows: int, decode_rows: int, cells: int) -> float:
        """Expected duration; never negative, whatever noise has taught."""
        return max(0.0, float(_features(prefill_rows, decode_rows, cells) @ np.maximum(self._weights, 0.0)))


def _features(prefill_rows: int, decode_rows: int, cells: int) -> npt.NDArray[np.float64]:
    return np.array([1.0, prefill_rows, decode_rows, cells * _KILOCELLS])
