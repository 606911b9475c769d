"""What an engine has taken on, how much more it takes, and when there will be room for more."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from inferd.engine.cost_model import CostModel, Speed
from inferd.engine.messages import AddRequest, EmbedRequest, TrafficClass

MAX_LIVE_REQUESTS = 1024
MAX_LIVE_TOKENS = 4_000_000
"""Bounds of all requests that wait or run: some 100 MB of Python integers at most."""
MIN_RETRY_AFTER_S = 1.0
MAX_RETRY_AFTER_S = 120.0
_WINDOW_S = 60.0
"""How far back the rate at which requests end is measured."""
_NUM_ENDED_TO_TRUST = 8
"""With fewer endings than that in less than the window there is no rate yet; the engine's expected speed has to do."""


class Backlog:
    """Counts the live requests and their tokens, prompt and limit together. Belongs to the event loop."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._live: dict[str, AddRequest | EmbedRequest] = {}
        self._num_prompt_tokens = 0
        self._num_output_tokens = 0
        self._num_batch = 0
        self._busy_since_s = 0.0
        self._ended: deque[tuple[float, int]] = deque()
        self._speed = Speed.expected(CostModel(), n_decodes=1, cells=0)
        self._observed_s = 0.0

    @property
    def num_tokens(self) -> int:
        return self._num_prompt_tokens + self._num_output_tokens

    @property
    def num_urgent(self) -> int:
        """Live requests that are not of the batch class, which leaves the others alone."""
        return len(self._live) - self._num_batch

    @property
    def speed(self) -> Speed:
        """As last observed; a guess before. The rate of embeddings is forgotten after a minute: requests are refused
        by it, and if all were, nothing would be measured any more."""
        if self._clock_s() - self._observed_s > _WINDOW_S:
            return replace(self._speed, embedding_ms_per_token=None)
        return self._speed

    def has_room_for(self, request: AddRequest | EmbedRequest) -> bool:
        return len(self._live) < MAX_LIVE_REQUESTS and self._excess_tokens(request) <= 0

    def add(self, request: AddRequest | EmbedRequest) -> None:
        if not self._live:
            self._busy_since_s = self._clock_s()
            self._ended.clear()
        self._live[request.request_id] = request
        self._num_batch += request.traffic_class is TrafficClass.BATCH
        self._num_prompt_tokens += request.num_prompt_tokens
        self._num_output_tokens += request.max_tokens

    def remove(self, request_id: str) -> None:
        """The request has ended; nothing of it is to be done any more, however little of its limit it has used."""
        request = self._live.pop(request_id)
        self._num_batch -= request.traffic_class is TrafficClass.BATCH
        self._num_prompt_tokens -= request.num_prompt_tokens
        self._num_output_tokens -= request.max_tokens
        self._ended.append((self._clock_s(), _size(request)))

    def observe(self, speed: Speed) -> None:
        self._speed, self._observed_s = speed, self._clock_s()

    def retry_after_s(self, request: AddRequest | EmbedRequest) -> float:
        """When there should be room for this request, which there is none for now: by the rate at which requests have
        ended in the last minute; before enough of them have, by how fast the engine would do all that their limits
        allow."""
        num_requests = max(0, len(self._live) + 1 - MAX_LIVE_REQUESTS)
        num_tokens = max(0, self._excess_tokens(request))
        measured_s = self._measured_s(num_requests, num_tokens)
        wait_s = self._expected_s(num_requests, num_tokens) if measured_s is None else measured_s
        return min(max(wait_s, MIN_RETRY_AFTER_S), MAX_RETRY_AFTER_S)

    def _excess_tokens(self, request: AddRequest | EmbedRequest) -> int:
        return self.num_tokens + _size(request) - MAX_LIVE_TOKENS

    def _measured_s(self, num_requests: int, num_tokens: int) -> float | None:
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
        """Time for so many tokens of the backlog's own mixture of prompts and outputs."""
        if not self._live:
            return MAX_RETRY_AFTER_S  # larger than all that is ever taken
        tokens = max(num_tokens, num_requests * self.num_tokens / len(self._live))
        share = tokens / self.num_tokens
        speed = self._speed
        prompt_s = self._num_prompt_tokens * share / speed.prompt_tokens_per_s
        return prompt_s + self._num_output_tokens * share / speed.output_tokens_per_s


def _size(request: AddRequest | EmbedRequest) -> int:
    return request.num_prompt_tokens + request.max_tokens
