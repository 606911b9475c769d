"""Backlog: the live requests of an engine, the limits of their number and size, and the expected wait beyond them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from inferd.engine.cost_model import CostModel, Speed
from inferd.engine.messages import AddRequest, EmbedRequest, TrafficClass

MAX_LIVE_REQUESTS = 1024
MAX_LIVE_TOKENS = 4_000_000
"""Limits of all live requests together: some 100 MB of Python integers at most."""
MIN_RETRY_AFTER_S = 1.0
MAX_RETRY_AFTER_S = 120.0
_WINDOW_S = 60.0
"""Window in which the completion rate is measured."""
_NUM_ENDED_TO_TRUST = 8
"""With fewer completions than that in less than the window the rate is unknown, and engine speed is used instead."""


class Backlog:
    """Accounting of the live requests and of their tokens, prompt and limit together. Belongs to the event loop."""

    def __init__(
        self,
        clock_s: Callable[[], float] = time.monotonic,
        *,
        max_requests: int = MAX_LIVE_REQUESTS,
        max_tokens: int = MAX_LIVE_TOKENS,
    ) -> None:
        self._clock_s = clock_s
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._live: dict[str, AddRequest | EmbedRequest] = {}
        self._num_tokens = 0
        self._num_prompt_tokens = 0
        self._num_batch = 0
        self._busy_since_s = 0.0
        self._ended: deque[tuple[float, int]] = deque()
        self._speed = Speed.expected(CostModel(), num_decodes=1, cells=0)
        self._observed_s = 0.0

    @property
    def num_urgent(self) -> int:
        """Live requests that are not batch."""
        return len(self._live) - self._num_batch

    @property
    def speed(self) -> Speed:
        """Last observed speed; a guess before the first observation. The rate of embeddings expires after a minute:
        requests are refused by it, and if all were refused, no new rate would ever be measured."""
        if self._clock_s() - self._observed_s > _WINDOW_S:
            return replace(self._speed, embedding_ms_per_token=None)
        return self._speed

    def has_room_for(self, request: AddRequest | EmbedRequest) -> bool:
        return len(self._live) < self._max_requests and self._excess_tokens(request) <= 0

    def add(self, request: AddRequest | EmbedRequest) -> None:
        if not self._live:
            self._busy_since_s = self._clock_s()
            self._ended.clear()
        self._live[request.request_id] = request
        self._num_batch += request.traffic_class is TrafficClass.BATCH
        self._num_prompt_tokens += request.num_prompt_tokens
        self._num_tokens += request.max_total_tokens

    def remove(self, request_id: str) -> None:
        """Remove a request that has ended. All of its limit counts as done, used or not."""
        request = self._live.pop(request_id)
        self._num_batch -= request.traffic_class is TrafficClass.BATCH
        self._num_prompt_tokens -= request.num_prompt_tokens
        self._num_tokens -= request.max_total_tokens
        self._ended.append((self._clock_s(), request.max_total_tokens))

    def observe(self, speed: Speed) -> None:
        self._speed, self._observed_s = speed, self._clock_s()

    def retry_after_s(self, request: AddRequest | EmbedRequest) -> float:
        """Return the seconds until this request should fit: estimated from the completion rate of the last minute, or
        from engine speed while that rate is unknown."""
        num_requests = max(0, len(self._live) + 1 - self._max_requests)
        num_tokens = max(0, self._excess_tokens(request))
        measured_s = self._measured_s(num_requests, num_tokens)
        wait_s = self._expected_s(num_requests, num_tokens) if measured_s is None else measured_s
        return min(max(wait_s, MIN_RETRY_AFTER_S), MAX_RETRY_AFTER_S)

    def _excess_tokens(self, request: AddRequest | EmbedRequest) -> int:
        return self._num_tokens + request.max_total_tokens - self._max_tokens

    def _measured_s(self, num_requests: int, num_tokens: int) -> float | None:
        """Return the seconds until these have ended, by the completion rate; None if that is unknown."""
        now_s = self._clock_s()
        while self._ended and self._ended[0][0] < now_s - _WINDOW_S:
            self._ended.popleft()
        window_s = min(_WINDOW_S, now_s - self._busy_since_s)
        if window_s <= 0.0 or (len(self._ended) < _NUM_ENDED_TO_TRUST and window_s < _WINDOW_S):
            return None
        # After a whole minute with none, one at most.
        requests_per_s = max(1, len(self._ended)) / window_s
        tokens_per_s = max(1, sum(tokens for _, tokens in self._ended)) / window_s
        return max(num_requests / requests_per_s, num_tokens / tokens_per_s)

    def _expected_s(self, num_requests: int, num_tokens: int) -> float:
        """Return the seconds for these tokens at engine speed, with the backlog's own mixture of prompts and
        outputs."""
        if not self._live:
            return MAX_RETRY_AFTER_S  # the request alone is above the limit
        tokens = max(num_tokens, num_requests * self._num_tokens / len(self._live))
        share = tokens / self._num_tokens
        speed = self._speed
        prompt_s = self._num_prompt_tokens * share / speed.prompt_tokens_per_s
        return prompt_s + (self._num_tokens - self._num_prompt_tokens) * share / speed.output_tokens_per_s
