"""A start that fails, fails as a whole."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from inferd.cli.banner import KEY_FILE
from inferd.cli.composition import run
from inferd.config.models_file import load_config
from inferd.errors import ConfigError
from inferd.ledger.storage.lock import DataLock


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


def test_a_second_serve_is_refused_though_the_lock_file_was_deleted(tmp_path):
    """R20: it begins no epoch, which would void the holds of the first."""
    (tmp_path / "models.toml").write_text("")
    folder = tmp_path / "data"
    main = "import sys; from inferd.cli.main import main; sys.exit(main())"
    options = ["serve", "--config", str(tmp_path / "models.toml"), "--data-dir", str(folder), "--port", "0"]
    command = [sys.executable, "-c", main, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert any("API key" in line for line in first.stdout)
            (folder / "server.lock").unlink()
            second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        finally:
            first.terminate()
    assert second.returncode == 2
    assert "already serves from this data folder" in second.stderr
    with closing(sqlite3.connect(folder / "ledger.db")) as conn:
        assert conn.execute("SELECT count(*) FROM epochs").fetchone() == (1,)
