"""`inferd serve`: a start that fails, and what a start prints."""

from __future__ import annotations

import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from io import StringIO
from ipaddress import ip_network
from pathlib import Path

import pytest
from rich.console import Console

from inferd.cli.banner import KEY_FILE, check_keyless, print_banner, warn_of_plain_http
from inferd.cli.composition import run
from inferd.config import ServerConfig, load_config
from inferd.errors import ConfigError
from inferd.ledger import operations
from inferd.ledger.storage.data_dir import DataLock
from inferd.ledger.storage.store import Store
from inferd.server.transport.local_socket import ask_server, socket_path
from inferd.server.transport.server import bind


def test_start_that_cannot_listen_creates_no_team_and_no_key(tmp_path):
    (tmp_path / "models.toml").write_text("")
    folder = tmp_path / "data"
    with closing(socket.create_server(("127.0.0.1", 0))) as taken, pytest.raises(ConfigError, match="cannot listen"):
        run(load_config(tmp_path / "models.toml"), folder, "127.0.0.1", taken.getsockname()[1])
    assert not (folder / KEY_FILE).exists()
    assert not (folder / "ledger.db").exists()
    again = DataLock(folder)
    again.acquire()
    again.release()


def test_start_whose_ollama_port_is_taken_names_the_option(tmp_path):
    (tmp_path / "models.toml").write_text("")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: .*Ollama itself.*--ollama-port"):
            run(load_config(tmp_path / "models.toml"), tmp_path / "data", "127.0.0.1", 0, port)


@pytest.mark.parametrize(
    ("scopes", "said"),
    [
        (("inference", "usage"), ""),
        (("inference", "manage"), "has the scope `manage`"),
        (("usage",), "lacks the scope"),
    ],
)
def test_start_checks_the_key_that_requests_without_one_act_as(tmp_path, scopes, said):
    output = StringIO()
    console = Console(file=output, width=200)
    author = operations.Author("test", 0)
    with DataLock(tmp_path) as lock:
        store = Store(tmp_path, lock)
        with store.immediate() as conn:
            operations.create_team(conn, "acme", by=author)
            key = operations.create_key(conn, "acme", operations.KeyRequest(scopes=scopes), by=author)
        check_keyless(console, store, ServerConfig())
        with pytest.raises(ConfigError, match=said) if said else nullcontext():
            check_keyless(console, store, ServerConfig(keyless=key.id))
        assert output.getvalue() == ""
        check_keyless(console, store, ServerConfig(keyless="A" * 12))
    assert "there is no key AAAAAAAAAAAA" in output.getvalue()


@contextmanager
def served(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """`inferd serve` without models on a data folder, once it is ready."""
    (folder.parent / "models.toml").write_text("")
    with subprocess.Popen(serve_command(folder), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert any("API key" in line for line in process.stdout)
            yield process
        finally:
            process.terminate()


def serve_command(folder: Path) -> list[str]:
    main = "import sys; from inferd.cli.main import main; sys.exit(main())"
    options = ["serve", "--config", str(folder.parent / "models.toml"), "--data-dir", str(folder), "--port", "0"]
    return [sys.executable, "-c", main, *options]


def test_second_serve_on_a_data_folder_is_refused_though_the_lock_file_was_deleted(tmp_path):
    """R20: it begins no epoch, which would void the holds of the first, and does not take the first one's socket."""
    folder = tmp_path / "data"
    with served(folder):
        (folder / "server.lock").unlink()
        second = subprocess.run(serve_command(folder), capture_output=True, text=True, timeout=60, check=False)
        assert ask_server(folder, "GET", "/health") == (200, b'{"status":"ok"}')
    assert second.returncode == 2
    assert "already serves from this data folder" in second.stderr
    with closing(sqlite3.connect(folder / "ledger.db")) as conn:
        assert conn.execute("SELECT count(*) FROM epochs").fetchone() == (1,)


def test_socket_of_a_killed_server_is_replaced_at_the_next_start_and_removed_at_its_end(tmp_path):
    folder = tmp_path / "data"
    with served(folder) as process:
        assert socket_path(folder).stat().st_mode & 0o777 == 0o600
        process.kill()
        process.wait()
    assert socket_path(folder).is_socket()
    assert ask_server(folder, "GET", "/health") is None
    with served(folder):
        assert ask_server(folder, "GET", "/health") == (200, b'{"status":"ok"}')
    assert not socket_path(folder).exists()


def said(host: str, config: ServerConfig) -> str:
    console = Console(file=StringIO(), width=1000)
    with closing(bind(host, 0)) as listener:
        warn_of_plain_http(console, listener, config)
    return console.file.getvalue()


def test_plain_http_beyond_loopback_prints_a_warning():
    text = said("0.0.0.0", ServerConfig())
    assert "WARNING" in text
    for word in ("0.0.0.0", "tls_certificate", "[server]", "trusted_proxies", "docs/security.md"):
        assert word in text


@pytest.mark.parametrize(
    ("host", "config"),
    [
        ("127.0.0.1", ServerConfig()),
        ("localhost", ServerConfig()),
        ("0.0.0.0", ServerConfig(tls_certificate=Path("cert.pem"))),
        ("0.0.0.0", ServerConfig(trusted_proxies=(ip_network("10.0.0.1"),))),
    ],
)
def test_loopback_tls_or_proxy_prints_no_warning(host, config):
    assert said(host, config) == ""


def test_banner_with_tls_has_https_urls(tmp_path):
    console = Console(file=StringIO(), width=1000)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        print_banner(console, listener, tmp_path, {"local/x": False}, None, "https")
        port = listener.getsockname()[1]
    assert f"inferd is ready: https://127.0.0.1:{port}/v1" in console.file.getvalue()


@pytest.mark.parametrize(
    ("deployments", "line"),
    [
        ({"o/paid": False, "o/open": True}, "Models:  o/paid, o/open (free for all teams)"),
        ({}, "Models:  none: [deployments] in models.toml is empty"),
    ],
)
def test_banner_marks_free_deployments(tmp_path, deployments, line):
    console = Console(file=StringIO(), width=1000)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        print_banner(console, listener, tmp_path, deployments, None)
    assert line in console.file.getvalue().splitlines()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_banner_shows_new_key_on_a_terminal_only(tmp_path, is_terminal):
    (tmp_path / KEY_FILE).write_text("sk-inferd-secret\n")
    console = Console(file=StringIO(), width=1000, force_terminal=is_terminal)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        print_banner(console, listener, tmp_path, {}, "sk-inferd-secret")
    text = console.file.getvalue()
    assert ("sk-inferd-secret" in text) is is_terminal
    assert str(tmp_path / KEY_FILE) in text


def test_banner_ends_with_a_command_that_the_shell_finds(tmp_path):
    console = Console(file=StringIO(), width=1000)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        print_banner(console, listener, tmp_path, {}, None)
    program, *words = shlex.split(console.file.getvalue().splitlines()[-2])
    assert words == ["teams", "create", "NAME", "--data-dir", str(tmp_path)]
    assert shutil.which(program) is not None
