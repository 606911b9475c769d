"""What a start says about where it listens."""

from __future__ import annotations

import socket
from contextlib import closing
from io import StringIO
from ipaddress import ip_network
from pathlib import Path

import pytest
from rich.console import Console

from inferd.cli.banner import print_banner, warn_of_plain_http
from inferd.server.http_server import bind
from inferd.server_config import ServerConfig


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
