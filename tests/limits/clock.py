"""Monotonic clock in milliseconds that tests advance."""

from __future__ import annotations


class MsClock:
    def __init__(self, now_ms: int = 1_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance_s(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)
