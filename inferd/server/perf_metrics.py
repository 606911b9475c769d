"""What one request measured, under Fireworks' names: as headers, or as `perf_metrics` in the body."""

from __future__ import annotations

from inferd.serving.completion import Finished

_PREFIXES = ("inferd-", "fireworks-")


def perf_metrics(finished: Finished, received_ns: int) -> dict[str, str]:
    """Counts of tokens, and seconds with 6 places, all as text.

    Args:
        received_ns: when the request came, on `time.monotonic_ns`.
    """
    usage = finished.usage
    metrics = {"prompt-tokens": str(usage.prompt_tokens), "cached-prompt-tokens": str(usage.cached_tokens)}
    if finished.first_token_ns is not None:
        metrics["server-time-to-first-token"] = _seconds(finished.first_token_ns - received_ns)
    metrics["server-processing-time"] = _seconds(finished.ended_ns - received_ns)
    return metrics


def perf_headers(metrics: dict[str, str]) -> dict[str, str]:
    return {prefix + name: value for prefix in _PREFIXES for name, value in metrics.items()}


def _seconds(ns: int) -> str:
    return f"{ns / 1e9:.6f}"
