"""Servers for the end-to-end tests. Those with real weights share one slot: two engines on one machine would only
measure each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.models import FAKE_MODELS_TOML, MODELS_TOML
from tests.e2e.server_process import INFERD, ServerProcess


class EngineSlot:
    """Runs one server at a time."""

    def __init__(self) -> None:
        self._current: ServerProcess | None = None

    def give_to(self, server: ServerProcess, launcher: tuple[str, ...] = INFERD) -> None:
        """Starts it if it does not run; stops the one that had the slot."""
        if self._current is not server:
            self.clear()
            self._current = server
        if not server.is_running:
            server.start(launcher)

    def clear(self) -> None:
        if self._current is not None:
            self._current.stop()
        self._current = None


@pytest.fixture(scope="session")
def slot() -> Iterator[EngineSlot]:
    slot = EngineSlot()
    yield slot
    slot.clear()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> ServerProcess:
    return ServerProcess(tmp_path_factory.mktemp("shared"), MODELS_TOML)


@pytest.fixture
def server(slot: EngineSlot, shared_server: ServerProcess) -> ServerProcess:
    """The real model behind the real command; running, and shared: a test makes its own team."""
    slot.give_to(shared_server)
    return shared_server


@pytest.fixture
def own_server(slot: EngineSlot, tmp_path: Path) -> Iterator[ServerProcess]:
    """Not running yet, with a data folder of its own; start it with `slot.give_to`."""
    server = ServerProcess(tmp_path, MODELS_TOML)
    yield server
    if server.is_running:
        slot.clear()


@pytest.fixture
def fake_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """On the fake engine; not running yet."""
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    server = ServerProcess(tmp_path, FAKE_MODELS_TOML)
    yield server
    server.stop()
