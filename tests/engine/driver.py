"""Drives an EngineCore on a FakeRunner, and checks at every turn what must hold always."""

from __future__ import annotations

from inferd.engine.core import MAX_STEP_MS, EngineCore
from inferd.engine.kv.unified import UnifiedKVCache
from inferd.engine.messages import AddRequest, FinishReason, RequestOutput
from inferd.sampling_params import SamplingParams
from inferd.usage import Usage
from tests.fakes import FakeClock, FakeRunner

MAX_STEPS = 20_000


def request(
    request_id: str = "r", prompt: bytes = b"hello", max_tokens: int = 8, params: SamplingParams | None = None
) -> AddRequest:
    """A request with one token a byte."""
    return AddRequest(request_id, tuple(prompt), params or SamplingParams(), max_tokens, tenant="team")


class Driver:
    """Gathers each request's outputs; no output may follow a terminal one, none may belong to nobody."""

    def __init__(
        self,
        runner: FakeRunner,
        clock: FakeClock | None = None,
        *,
        host_cache_bytes: int = 0,
        max_step_ms: float = MAX_STEP_MS,
        speculates: bool = True,
    ) -> None:
        self.runner = runner
        self.core = EngineCore(
            runner,
            clock or FakeClock(),
            host_cache_bytes=host_cache_bytes,
            max_step_ms=max_step_ms,
            speculates=speculates,
        )
        self.outputs: dict[str, list[RequestOutput]] = {}

    @property
    def num_running(self) -> int:
        return len(self.core._scheduler.running)

    @property
    def num_waiting(self) -> int:
        return len(self.core._scheduler.waiting)

    def add(self, *requests: AddRequest) -> None:
        for added in requests:
            self.outputs[added.request_id] = []
            self.core.add_request(added)

    def step(self) -> None:
        self.core.step()
        self.gather()

    def abort(self, request_id: str) -> None:
        self.core.abort(request_id)
        self.gather()

    def gather(self) -> None:
        for output in self.core.take_outputs():
            outputs = self.outputs[output.request_id]
            assert not outputs or outputs[-1].finish_reason is None, "an output after the terminal one"
            outputs.append(output)
        self.check_memory()

    def check_memory(self) -> None:
        """Books and memory agree to the token: lengths alone would not show a wrong prefix."""
        self.core.check_integrity()
        kv_cache = self.core._kv_cache
        for seq_id, sequence in kv_cache._running.items():
            assert self.runner.contents(seq_id) == sequence.token_ids[: sequence.num_computed_tokens]
        for branch in kv_cache._prefix_cache.branches():
            held = self.runner.contents(branch.seq_id) if branch.state is None else self.runner.read(branch.state)
            assert held == list(branch.token_ids), "a branch holds what it says"
        if isinstance(kv_cache, UnifiedKVCache):
            self.runner.check_used(kv_cache._cells.num_used)

    def run(self) -> None:
        for _ in range(MAX_STEPS):
            if not self.core.has_work:
                return
            self.step()
        raise AssertionError("some request never ends")

    def final(self, request_id: str = "r") -> RequestOutput:
        terminal = [output for output in self.outputs[request_id] if output.finish_reason is not None]
        assert len(terminal) == 1, f"{request_id} has {len(terminal)} terminal outputs"
        return terminal[0]

    def reason(self, request_id: str = "r") -> FinishReason | None:
        return self.final(request_id).finish_reason

    def usage(self, request_id: str = "r") -> Usage:
        usage = self.final(request_id).usage
        assert usage is not None
        return usage

    def text(self, request_id: str = "r") -> str:
        return "".join(output.text for output in self.outputs[request_id])

    def token_ids(self, request_id: str = "r") -> list[int]:
        return [token_id for output in self.outputs[request_id] for token_id in output.token_ids]
