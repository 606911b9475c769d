"""What a start says about where it listens."""

from __future__ import annotations

import shlex
import shutil
import socket
from contextlib import closing
from io import StringIO
from ipaddress import ip_network
from pathlib import Path

import pytest
from rich.console import Console

from inferd.cli.banner import KEY_FILE, print_banner, warn_of_plain_http
from inferd.config.server import ServerConfig
from inferd.server.transport.http_server import bind


def said(host: str, config: ServerConfig) -> str:
    console = Console(file=StringIO(), width=1000)
    with closing(bind(host, 0)) as listener:
        warn_of_plain_http(console, listener, config)
    return console.file.getvalue()


def test_plain_http_beyond_this_machine_is_warned_of_loudly():
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
def test_loopback_tls_and_a_proxy_are_not_warned_of(host, config):
    assert said(host, config) == ""


def test_with_tls_the_snippets_say_https(tmp_path):
    console = Console(file=StringIO(), width=1000)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        print_banner(console, listener, tmp_path, {"local/x": False}, None, "https")
        port = listener.getsockname()[1]
    assert f"inferd is ready: https://127.0.0.1:{port}/v1" in console.file.getvalue()


@pytest.mark.parametrize(
    ("deployments", "line"),
    [
        ({"o/paid": False, "o/open": True}, "Models:  o/paid, o/open (free, for every team)"),
        ({}, "Models:  none: [deployments] of models.toml has none"),
    ],
)
def test_what_costs_nothing_is_said(tmp_path, deployments, line):
    console = Console(file=StringIO(), width=1000)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        print_banner(console, listener, tmp_path, deployments, None)
    assert line in console.file.getvalue().splitlines()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_new_key_is_shown_on_a_terminal_and_never_in_a_log(tmp_path, is_terminal):
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
