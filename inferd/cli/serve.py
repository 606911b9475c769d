"""`inferd serve`: composes configuration, ledger, engines and HTTP, and runs them until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from inferd.cli.banner import KEY_FILE, print_banner
from inferd.config import Config, data_dir, default_config_path, load_config
from inferd.ledger import operations
from inferd.ledger.authenticator import Authenticator
from inferd.ledger.lock import DataLock
from inferd.ledger.store import Store
from inferd.ledger.writer import LedgerWriter
from inferd.serving.clock import wall_clock_ms

if TYPE_CHECKING:
    from inferd.deployments.router import Router
    from inferd.server.http_server import HttpServer

DRAIN_TIMEOUT_S = 30.0


def serve(
    config: Annotated[
        Path | None, typer.Option(help="models.toml to serve; else the one in this folder, else the one shipped.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Folder of the ledger; else $INFERD_DATA_DIR, else the XDG data folder."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve the models of models.toml as an OpenAI API.

    The first start in an empty data folder makes team `default` with one API key and shows it; later ones name the
    file that keeps it. Ctrl-C lets running requests end (at most 30 s), a second one does not wait.

    Example: inferd serve --port 8080
    """
    logging.basicConfig(level=_level(log_level), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    settings = load_config(default_config_path(config))
    folder = data_dir(data)
    lock = DataLock(folder)
    lock.acquire()
    try:
        _run(settings, folder, lock, host, port)
    finally:
        lock.release()


def _level(name: str) -> int:
    levels = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
    if name not in levels:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(levels)}", param_hint="--log-level")
    return levels[name]


def _run(config: Config, folder: Path, lock: DataLock, host: str, port: int) -> None:
    # Heavy, and needed by no other command.
    import uvloop

    from inferd.server.http_server import bind

    console = Console(highlight=False)
    store = Store(folder, lock)
    epoch = store.begin_epoch(wall_clock_ms())
    new_key = _ensure_default_key(store, folder)
    with closing(bind(host, port)) as listener:
        if not host.startswith("127.") and host not in ("localhost", "::1"):
            console.print(f"[bold red]WARNING[/]: {host} is not a loopback address, and this is HTTP without TLS.")
        uvloop.run(_serve(config, store, epoch, listener, console, new_key))


def _ensure_default_key(store: Store, folder: Path) -> str | None:
    """The key if this start made it. Its file is written before the commit that makes it valid, so that a crash in
    between leaves a useless file, not a team whose key nobody knows."""
    with store.immediate() as conn:
        new_key = operations.ensure_default_team(conn, actor="cli:serve", now_ms=wall_clock_ms())
        if new_key is None:
            return None
        descriptor = os.open(folder / KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(new_key.key + "\n")
            file.flush()
            os.fsync(descriptor)
    return new_key.key


async def _serve(
    config: Config, store: Store, epoch: int, listener: socket.socket, console: Console, new_key: str | None
) -> None:
    from inferd.deployments.router import Router
    from inferd.server.app import build_app
    from inferd.server.http_server import HttpServer
    from inferd.server.services import Services
    from inferd.serving.completions import Completions

    writer = LedgerWriter(store)
    router = Router.from_config(config)
    completions = Completions(writer, epoch=epoch, clock_ms=wall_clock_ms)

    async def drain() -> None:
        completions.close()
        if completions.num_live:
            console.print(f"Waiting for {completions.num_live} requests to end (Ctrl-C again: don't wait)...")
        await completions.wait_idle(DRAIN_TIMEOUT_S)

    def ready() -> None:
        print_banner(console, listener, store.data_dir, list(config.deployments), new_key)

    writer.start()
    try:
        with closing(Authenticator(store)) as authenticator:
            server = HttpServer(build_app(Services(router, completions, authenticator)), drain)
            warming = asyncio.create_task(_warm_up(router, server, console))
            warming.add_done_callback(lambda task: server.stop() if task.exception() else ready())
            await server.run_on(listener)
            await asyncio.wait([warming])  # a model that is being loaded cannot be interrupted
            # Engines end what is still live with an error, which voids its hold; then the books can close.
            for replica in router.replicas:
                await replica.stop()
            await completions.wait_idle(DRAIN_TIMEOUT_S)
            warming.result()
    finally:
        writer.stop()


async def _warm_up(router: Router, server: HttpServer, console: Console) -> None:
    """One model after the other: two that load at once would only slow each other down."""
    for replica in router.replicas:
        if server.should_exit:
            return
        console.print(f"Loading {replica.key} ...")
        started_s = time.monotonic()
        await replica.start()
        console.print(f"Loading {replica.key} ... warm after {time.monotonic() - started_s:.1f} s")
