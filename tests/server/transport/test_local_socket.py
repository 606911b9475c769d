"""The server's UNIX socket: private, replaced after a kill, and the only way to be the operator without a key."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from ipaddress import ip_network

import httpx
import pytest

from inferd.config import RegionsConfig, ServerConfig
from inferd.instants import wall_clock_ms
from inferd.ledger import operations
from inferd.ledger.identity.authenticator import Caller
from inferd.server.app import build_app
from inferd.server.transport import local_socket
from inferd.server.transport.local_socket import (
    MAX_PATH_BYTES,
    OPERATOR,
    actor_of,
    ask_server,
    local_listener,
    socket_path,
)
from inferd.server.transport.server import HttpServer, bind
from tests.serving.provider import PATIENCE_S, Provider, chat_body

pytestmark = pytest.mark.anyio

ACTOR = actor_of(os.getuid())


@asynccontextmanager
async def served(provider: Provider, config: ServerConfig | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Serve on TCP and on the socket of the provider's folder; yield a client of the TCP listener, without a key."""

    async def drain() -> None:
        await provider.completions.wait_idle(PATIENCE_S)

    app = provider.app if config is None else build_app(provider.services, config)
    with closing(bind("127.0.0.1", 0)) as tcp, local_listener(provider.data_dir) as local:
        server = HttpServer(app, drain, provider.completions.cut_off)
        running = asyncio.create_task(server.run_on(tcp, local))
        await provider.until(lambda: server.started)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{tcp.getsockname()[1]}", timeout=PATIENCE_S) as client:
            yield client
        server.stop()
        await asyncio.wait_for(running, PATIENCE_S)


def over_socket(provider: Provider, **options) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=str(socket_path(provider.data_dir)))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=PATIENCE_S, **options)


async def test_admin_call_over_socket_needs_no_key_and_is_logged_as_the_user(provider):
    async with served(provider), over_socket(provider) as client:
        created = await client.post("/admin/teams", json={"team": "beta"})
        assert created.status_code == 200
    entry = operations.read_log(provider.reader, operations.LogQuery(limit=1))[0]
    assert entry.action == "teams.create"
    assert entry.actor == ACTOR


@pytest.mark.parametrize("headers", [{}, {OPERATOR: ACTOR}, {"host": "localhost"}, {"x-forwarded-for": "unix:"}])
async def test_admin_call_over_tcp_without_key_is_refused(provider, headers):
    async with served(provider) as client:
        response = await client.get("/admin/teams", headers=headers)
    assert response.status_code == 401


async def test_model_call_over_socket_needs_a_key(provider):
    async with served(provider), over_socket(provider) as client:
        refused = await client.post("/v1/chat/completions", json=chat_body())
        headers = {"authorization": f"Bearer {provider.key}"}
        answered = await client.post("/v1/chat/completions", json=chat_body(max_tokens=2), headers=headers)
    assert refused.status_code == 401
    assert answered.status_code == 200


async def test_host_and_region_rules_hold_over_tcp_and_not_over_socket(provider):
    config = ServerConfig(regions=RegionsConfig(allow_networks=(ip_network("203.0.113.0/24"),)))
    async with served(provider, config) as tcp, over_socket(provider, headers={"host": "elsewhere"}) as local:
        assert (await local.get("/admin/teams")).status_code == 200
        assert (await tcp.get("/admin/teams", headers={"host": "elsewhere"})).status_code == 421
        assert (await tcp.get("/admin/teams")).status_code == 403


async def test_batch_cancelled_over_socket_is_woken_and_logged(provider, monkeypatch):
    woken = []
    monkeypatch.setattr(provider.batches, "wake", lambda: woken.append(True))
    key_id = provider.key.split("-")[2]
    owner = Caller("acme", "inference", None, key_id, "academic")
    author = operations.Author("test", wall_clock_ms())
    with provider.store.immediate() as conn:
        operations.create_file(conn, owner, operations.NewFile("file-1", "in.jsonl", 9), by=author)
        batch = operations.create_batch(conn, owner, operations.NewBatch("/v1/chat/completions", "file-1"), by=author)
    path = f"/admin/batches/{batch.batch_id}/cancel"
    async with served(provider):
        status, body = await asyncio.to_thread(ask_server, provider.data_dir, "POST", path)
    assert status == 200
    assert json.loads(body)["batch_id"] == batch.batch_id
    assert json.loads(body)["status"] == "cancelling"
    assert woken == [True]
    assert operations.read_log(provider.reader, operations.LogQuery(limit=1))[0].actor == ACTOR


def test_socket_is_private_whatever_the_umask_and_removed_at_the_end(tmp_path):
    mask = os.umask(0)
    try:
        with local_listener(tmp_path):
            assert socket_path(tmp_path).stat().st_mode & 0o777 == 0o600
            assert os.umask(0) == 0
    finally:
        os.umask(mask)
    assert not socket_path(tmp_path).exists()


def test_socket_file_of_a_killed_server_is_replaced(tmp_path):
    with closing(socket.socket(socket.AF_UNIX)) as killed:
        killed.bind(str(socket_path(tmp_path)))
    assert ask_server(tmp_path, "GET", "/health") is None
    with local_listener(tmp_path) as listener, closing(socket.socket(socket.AF_UNIX)) as client:
        assert listener is not None
        client.connect(str(socket_path(tmp_path)))


def test_path_too_long_for_a_socket_is_warned_of_and_leaves_no_socket(tmp_path, caplog):
    folder = tmp_path / ("x" * MAX_PATH_BYTES)
    folder.mkdir()
    with caplog.at_level(logging.WARNING), local_listener(folder) as listener:
        assert listener is None
    assert "choose a --data-dir with a shorter path" in caplog.text
    assert ask_server(folder, "GET", "/health") is None


def test_longest_path_has_a_socket(tmp_path):
    folder = tmp_path / ("x" * (MAX_PATH_BYTES - len(os.fsencode(tmp_path)) - len("//server.sock")))
    folder.mkdir()
    with local_listener(folder) as listener:
        assert listener is not None


def test_name_taken_by_a_folder_is_warned_of(tmp_path, caplog):
    socket_path(tmp_path).mkdir()
    with caplog.at_level(logging.WARNING), local_listener(tmp_path) as listener:
        assert listener is None
    assert "commands cannot reach the running server" in caplog.text


def test_ask_without_a_server_returns_none(tmp_path):
    assert ask_server(tmp_path, "GET", "/health") is None


def test_ask_of_a_server_that_does_not_answer_times_out(tmp_path, monkeypatch):
    monkeypatch.setattr(local_socket, "ANSWER_TIMEOUT_S", 0.05)
    with local_listener(tmp_path), pytest.raises(TimeoutError):
        ask_server(tmp_path, "GET", "/health")
