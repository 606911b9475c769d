"""ModelCore: all that is computed with one model, text and embeddings in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from inferd.engine.cost_model import Speed
from inferd.engine.fairness import BatchDebt
from inferd.engine.messages import AddRequest, EmbedRequest, RequestOutput

RequestT = TypeVar("RequestT", contravariant=True)


class Core(Protocol[RequestT]):
    """Computation of one kind of request. Every request that `add_request` took ends in one terminal output."""

    @property
    def has_work(self) -> bool:
        """Whether a request is live."""
        ...

    @property
    def has_urgent_work(self) -> bool:
        """Whether a live request is not batch."""
        ...

    @property
    def speed(self) -> Speed:
        """Current speed of all live requests together."""
        ...

    def add_request(self, request: RequestT) -> None:
        """Queue a request. User errors were refused before; here they are broken preconditions."""
        ...

    def abort(self, request_id: str) -> None:
        """End a request with CANCELLED; ids of requests that have ended are ignored."""
        ...

    def abort_all(self, error: str) -> None:
        """End every request with ERROR; none is billed."""
        ...

    def take_outputs(self) -> list[RequestOutput]:
        """Return the outputs since the last call; those of one request are in order."""
        ...

    def step(self) -> None:
        """Compute one bounded step; there is work."""
        ...

    def check_integrity(self) -> None:
        """Assert that the accounting is consistent; cheap enough for every idle moment."""
        ...

    def close(self) -> None:
        """Release contexts; no request is live."""
        ...


class ModelCore:
    """The computation of one model, driven by an engine's thread.

    The cores take turns, one step each: a sequence that decodes waits for at most one bounded step of embeddings, and
    embeddings get at least half of the steps. A core that has only batch work gets batch's share of the time while
    another has urgent work.

    Args:
        cores: by the type of the requests that they compute, text first.
        release: frees the model; called after the cores are closed.
    """

    def __init__(
        self,
        cores: Mapping[type[AddRequest | EmbedRequest], Core[Any]],
        release: Callable[[], None] | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        assert cores, "a model computes something"
        self._core_of = dict(cores)
        self._cores = tuple(cores.values())
        self._release = release
        self._clock_ns = clock_ns
        self._debt = BatchDebt()

    @property
    def has_work(self) -> bool:
        return any(core.has_work for core in self._cores)

    @property
    def speed(self) -> Speed:
        """The first core's token rates, with the last core's rate of embeddings."""
        speeds = [core.speed for core in self._cores]
        return replace(speeds[0], embedding_ms_per_token=speeds[-1].embedding_ms_per_token)

    def add_request(self, request: AddRequest | EmbedRequest) -> None:
        """Queue a request of a kind that this model computes."""
        self._core_of[type(request)].add_request(request)

    def abort(self, request_id: str) -> None:
        """End a request; ids of requests that have ended are ignored."""
        for core in self._cores:
            core.abort(request_id)

    def abort_all(self, error: str) -> None:
        """End every request with an error; none is billed."""
        for core in self._cores:
            core.abort_all(error)

    def take_outputs(self) -> list[RequestOutput]:
        """Return all outputs since the last call; those of one request are in order."""
        return [output for core in self._cores for output in core.take_outputs()]

    def step(self) -> None:
        """Compute one step of each core that may run now."""
        urgent = [core for core in self._cores if core.has_urgent_work]
        batch_may_run = self._debt.is_paid
        for core in self._cores:
            is_urgent = core in urgent
            is_beside_urgent = len(urgent) > is_urgent
            if core.has_work and (is_urgent or batch_may_run or not is_beside_urgent):
                self._step(core, is_urgent=is_urgent, is_beside_urgent=is_beside_urgent)

    def _step(self, core: Core[Any], *, is_urgent: bool, is_beside_urgent: bool) -> None:
        """Compute one step of a core, and account for its time."""
        began_ns = self._clock_ns()
        core.step()
        taken_ns = self._clock_ns() - began_ns
        if is_urgent:
            self._debt.pay(taken_ns)
        elif is_beside_urgent:
            self._debt.owe(taken_ns)
        else:
            self._debt.forgive()

    def check_integrity(self) -> None:
        """Assert that accounting and native memory agree."""
        for core in self._cores:
            core.check_integrity()

    def close(self) -> None:
        """Release contexts and model; no request is live."""
        for core in self._cores:
            core.close()
        if self._release is not None:
            self._release()
