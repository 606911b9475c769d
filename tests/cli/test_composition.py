"""A start that fails, fails as a whole."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from inferd.cli.banner import KEY_FILE
from inferd.cli.composition import run
from inferd.config import load_config
from inferd.errors import ConfigError
from inferd.ledger.lock import DataLock


def test_a_start_that_cannot_listen_makes_no_team_and_no_key(tmp_path):
    (tmp_path / "models.toml").write_text("")
    folder = tmp_path / "data"
    with closing(socket.create_server(("127.0.0.1", 0))) as taken, pytest.raises(ConfigError, match="cannot listen"):
        run(load_config(tmp_path / "models.toml"), folder, "127.0.0.1", taken.getsockname()[1])
    assert not (folder / KEY_FILE).exists()
    assert not (folder / "ledger.db").exists()
    again = DataLock(folder)
    again.acquire()
    again.release()
