"""The fake runner keeps the contract of the protocol; tests/engine/llama has the real models."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from inferd.engine.runner import Runner
from tests.engine.runner_contract import RunnerContract
from tests.fake_cells import UnifiedFakeRunner
from tests.fakes import FakeRunner

FAKES: dict[str, Callable[[], Runner]] = {
    "plain": FakeRunner,
    "window": lambda: FakeRunner(window_size=8),
    "recurrent": lambda: FakeRunner(cuts=False),
    "unified": UnifiedFakeRunner,
    "unified-window": lambda: UnifiedFakeRunner(window_size=8),
}


class TestFakeRunner(RunnerContract):
    """Fakes without weights, one of each kind of memory."""

    @pytest.fixture(params=FAKES)
    def runner(self, request: pytest.FixtureRequest) -> Runner:
        return FAKES[request.param]()
