"""All that is computed with one model: text, vectors, or both in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from inferd.engine.core import EngineCore
from inferd.engine.cost_model import Speed
from inferd.engine.embeddings.core import EmbeddingCore
from inferd.engine.fairness import BatchDebt
from inferd.engine.messages import AddRequest, EmbedRequest, RequestOutput


class ModelCore:
    """What an engine's thread drives. One step of text, then one of vectors: who waits for a next token waits for one
    bounded step more, and vectors get at least their half of the steps. Where one kind has nothing but batch, and the
    other has more, the one gets batch's part of the time.

    Args:
        generation: None: the model makes no text.
        embeddings: None: it makes no vectors.
        release: frees what is neither's own; called last.
    """

    def __init__(
        self,
        generation: EngineCore | None,
        embeddings: EmbeddingCore | None = None,
        release: Callable[[], None] | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        assert generation is not None or embeddings is not None, "a model is for something"
        self._generation = generation
        self._embeddings = embeddings
        self._release = release
        self._clock_ns = clock_ns
        self._debt = BatchDebt()

    @property
    def has_work(self) -> bool:
        return self._generates or self._embeds

    @property
    def _generates(self) -> bool:
        return self._generation is not None and self._generation.has_work

    @property
    def _embeds(self) -> bool:
        return self._embeddings is not None and self._embeddings.has_work

    @property
    def speed(self) -> Speed:
        ms_per_token = None if self._embeddings is None else self._embeddings.ms_per_token
        if self._generation is not None:
            return replace(self._generation.speed, embedding_ms_per_token=ms_per_token)
        assert self._embeddings is not None, "a model is for something"
        tokens_per_s = self._embeddings.tokens_per_s
        return Speed(tokens_per_s, tokens_per_s, ms_per_token)

    def add_request(self, request: AddRequest | EmbedRequest) -> None:
        """Queues a request. What a person could have got wrong was refused before; here it is a precondition."""
        if isinstance(request, EmbedRequest):
            assert self._embeddings is not None, "this model makes vectors"
            self._embeddings.add_request(request)
        else:
            assert self._generation is not None, "this model makes text"
            self._generation.add_request(request)

    def abort(self, request_id: str) -> None:
        """Ends a request; nothing happens if it has just ended by itself."""
        for core in (self._generation, self._embeddings):
            if core is not None:
                core.abort(request_id)

    def abort_all(self, error: str) -> None:
        """Ends every request with an error; nobody pays."""
        for core in (self._generation, self._embeddings):
            if core is not None:
                core.abort_all(error)

    def take_outputs(self) -> list[RequestOutput]:
        """All outputs since the last call; those of one request are in order."""
        cores = (self._generation, self._embeddings)
        return [output for core in cores if core is not None for output in core.take_outputs()]

    def step(self) -> None:
        text_is_urgent = self._generation is not None and self._generation.has_urgent_work
        vectors_are_urgent = self._embeddings is not None and self._embeddings.has_urgent_work
        may_run = self._debt.is_paid
        if self._generation is not None and self._generates and (text_is_urgent or may_run or not vectors_are_urgent):
            self._take(self._generation.step, text_is_urgent, beside=vectors_are_urgent)
        if self._embeddings is not None and self._embeds and (vectors_are_urgent or may_run or not text_is_urgent):
            embeddings, is_alone = self._embeddings, not self._generates
            self._take(lambda: embeddings.step(is_alone=is_alone), vectors_are_urgent, beside=text_is_urgent)

    def _take(self, step: Callable[[], None], is_urgent: bool, *, beside: bool) -> None:
        """`beside`: whether the other kind has urgent work."""
        began_ns = self._clock_ns()
        step()
        took_ns = self._clock_ns() - began_ns
        if is_urgent:
            self._debt.pay(took_ns)
        elif beside:
            self._debt.owe(took_ns)
        else:
            self._debt.forgive()

    def check_integrity(self) -> None:
        """Asserts that books and native memory agree."""
        if self._generation is not None:
            self._generation.check_integrity()

    def close(self) -> None:
        """Releases contexts and model; no request is live."""
        if self._embeddings is not None:
            self._embeddings.close()  # first: the runner owns the model, whose weights its context uses
        if self._generation is not None:
            self._generation.close()
        if self._release is not None:
            self._release()
