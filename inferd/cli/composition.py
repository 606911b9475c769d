"""`inferd serve`: ledger, engines and HTTP server, composed and run until a signal stops them."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio.lowlevel
import uvloop
from rich.console import Console

from inferd.cli.banner import KEY_FILE, check_keyless, print_banner, warn_of_plain_http
from inferd.config import Config, master_key
from inferd.deployments.local_replica import LocalReplica
from inferd.deployments.router import Router
from inferd.errors import InferdError, OverloadedError
from inferd.instants import steady_clock_ms, wall_clock_ms
from inferd.ledger import DataLock, LedgerClient, LedgerWriter, Store, operations, write_deployments
from inferd.ledger.identity import Authenticator
from inferd.ledger.requests import begin_epoch
from inferd.ledger.terms import PauseClock
from inferd.limits.rate_limits import RateLimits
from inferd.sealed import KeyRing
from inferd.server.app import build_app
from inferd.server.errors import encoded_error
from inferd.server.services import Services
from inferd.server.transport.local_socket import local_listener
from inferd.server.transport.server import HttpServer, bind, tls_context
from inferd.serving.batches.batch_context import BatchContext
from inferd.serving.batches.batches import Batches
from inferd.serving.completions import Completions
from inferd.serving.file_store import FileStore
from inferd.serving.holds import Holds
from inferd.serving.maintenance import Maintenance, Retention, WatchedClock
from inferd.serving.responses.response_store import ResponseStore
from inferd.serving.responses.stored_responses import StoredResponses
from inferd.serving.ticket_issuer import TicketIssuer, seed

OLLAMA_HOST = "127.0.0.1"
DRAIN_TIMEOUT_S = 30.0
SWITCH_INTERVAL_S = 0.0005
FILE_CHECK_S = 1.0
STACK_BYTES = 64 * 2**20
"""Stack of every thread, whatever `ulimit -s` says; untouched pages take no memory. A regular expression of llama.cpp
takes 323 bytes of stack a character, and a text forced by a grammar may have 200,000 characters."""
_ACTOR = "cli:serve"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listeners:
    """Listening sockets of a server.

    Attributes:
        host: `--host` as given, a name that clients may use.
        local: UNIX socket for commands on this machine; None if it could not be bound.
        ollama: further socket for clients of Ollama; None if the operator wants none.
    """

    host: str
    tcp: socket.socket
    local: socket.socket | None
    ollama: socket.socket | None = None

    @property
    def ollama_port(self) -> int | None:
        return None if self.ollama is None else int(self.ollama.getsockname()[1])


def run(config: Config, folder: Path, host: str, port: int, ollama_port: int | None = None) -> None:
    """Serve until a signal stops the server. Raises ConfigError if it cannot start.

    Args:
        ollama_port: further port, of 127.0.0.1, for clients of Ollama.
    """
    # The device idles while the thread of an engine waits for the interpreter after a step.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    threading.stack_size(STACK_BYTES)
    lock = DataLock(folder)
    lock.acquire()
    try:
        # Before anything is written: a start that cannot listen leaves no epoch, and no key that was never shown.
        with ExitStack() as stack:
            tcp = stack.enter_context(closing(bind(host, port)))
            ollama = None
            if ollama_port is not None:
                remedy = (
                    "another server, such as Ollama itself, may have it: stop that, or choose another --ollama-port"
                )
                ollama = stack.enter_context(closing(bind(OLLAMA_HOST, ollama_port, remedy)))
            local = stack.enter_context(local_listener(folder))
            _run(config, folder, lock, Listeners(host, tcp, local, ollama))
    finally:
        lock.release()


def _run(config: Config, folder: Path, lock: DataLock, listeners: Listeners) -> None:
    console = Console(highlight=False)
    store = Store(folder, lock)
    epoch = begin_epoch(store, wall_clock_ms())
    with store.immediate() as conn:
        operations.apply_plans(conn, config.catalog, by=operations.Author(_ACTOR, wall_clock_ms()))
    write_deployments(folder, config.deployments)
    new_key = _ensure_default_key(store, folder)
    warn_of_plain_http(console, listeners.tcp, config.server)
    check_keyless(console, store, config.server)
    uvloop.run(_serve(config, store, epoch, listeners, console, new_key))


def _ensure_default_key(store: Store, folder: Path) -> str | None:
    """Create team `default` with a key on the first start, and return the key; None on later starts.

    The file of the key is written before the commit that makes the key valid: a crash in between leaves a useless file,
    not a team with a lost key.
    """
    with store.immediate() as conn:
        new_key = operations.ensure_default_team(conn, by=operations.Author(_ACTOR, wall_clock_ms()))
        if new_key is None:
            return None
        descriptor = os.open(folder / KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(new_key.key + "\n")
            file.flush()
            os.fsync(descriptor)
    return new_key.key


async def _serve(
    config: Config, store: Store, epoch: int, listeners: Listeners, console: Console, new_key: str | None
) -> None:
    """Build all services on an open ledger, and run them until a signal stops the server."""
    certificate, key = config.server.tls_certificate, config.server.tls_key
    tls = None if certificate is None else tls_context(certificate, key)
    writer = LedgerWriter(store)
    router = Router.from_config(config)
    clock = WatchedClock(partial(_pause_expiry, writer))
    keys = KeyRing(store.data_dir, master_key())
    if config.server.responses_days:
        keys.check()
    response_store = ResponseStore(store.data_dir, keys)
    response_store.scan()
    retention = Retention(config.ledger.usage_retention_days, response_store, config.server.responses_days)
    maintenance = Maintenance(store, writer, clock, retention=retention, alerts=config.alerts)
    limits = RateLimits(steady_clock_ms, lambda: router.load)
    with store.reading() as conn:
        seed(limits, conn, now_ms=clock())
    completions = Completions(Holds(writer, epoch=epoch, clock_ms=clock, contact=config.ledger.contact))
    writer.start()
    maintaining = asyncio.create_task(maintenance.run(), name="maintenance of the ledger")
    try:
        with closing(Authenticator(store)) as authenticator, closing(LedgerClient(store, writer)) as ledger:
            ticket_issuer = TicketIssuer(limits, authenticator, clock, config.ledger.contact)
            files = FileStore(store.data_dir)
            context = BatchContext(
                *(store, ledger, files, router, completions, authenticator, ticket_issuer, encoded_error, clock),
                strict=config.server.strict,
            )
            batches = Batches(context, writer)
            responses = StoredResponses(response_store, ledger, clock, days=config.server.responses_days)
            if responses.keeps:
                await responses.recover()
            services = Services(router, completions, authenticator, ledger, ticket_issuer, files, batches, responses)
            app = build_app(services, config.server, listeners.host, listeners.ollama_port)
            server = HttpServer(app, partial(_drain, completions, batches, console), completions.cut_off, tls)

            def announce() -> None:
                scheme = "http" if tls is None else "https"
                print_banner(console, listeners.tcp, store.data_dir, _offered(router), new_key, scheme)
                if listeners.ollama_port is not None:
                    console.print(f"For clients of Ollama: export OLLAMA_HOST={OLLAMA_HOST}:{listeners.ollama_port}\n")

            await _run_until_stopped(services, server, listeners, console, announce)
    finally:
        maintaining.cancel()
        await asyncio.wait([maintaining])
        writer.stop()


async def _run_until_stopped(
    services: Services, server: HttpServer, listeners: Listeners, console: Console, announce: Callable[[], None]
) -> None:
    """Serve, and load the models meanwhile. Raises the error of the last model if none can be served."""
    router, completions, batches = services.router, services.completions, services.batches
    batches.sweep_disk()
    batching = asyncio.create_task(batches.run(), name="batches")
    ended = asyncio.Event()
    watching = asyncio.create_task(_watch_files(router, ended), name="files of the models")
    loading = asyncio.create_task(_load_models(router, server, console))

    def end_of_loading(task: asyncio.Task[None]) -> None:
        if task.exception():
            server.stop()
        elif not server.is_stopping:
            announce()

    loading.add_done_callback(end_of_loading)
    with server.handle_signals():
        await server.run_on(listeners.tcp, listeners.local, listeners.ollama)
        await _until_loaded(loading, server)
        await asyncio.gather(batches.stop(), batching)
        await completions.tokenizers.close()  # its threads read vocabularies, which engines release
        ended.set()
        await watching
        # Stopped engines end the requests that were cut off; their holds are voided before the writer stops.
        for replica in router.replicas:
            await replica.stop()
        await completions.wait_idle(DRAIN_TIMEOUT_S)
        await services.responses.stop()
    loading.result()


def _pause_expiry(writer: LedgerWriter, because: str) -> None:
    with suppress(OverloadedError):  # the writer has stopped, so that no credit expires any more
        writer.submit(PauseClock(because))


def _offered(router: Router) -> dict[str, bool]:
    """Return the deployments that are served, and whether each is free."""
    return {
        deployment.name: deployment.price is None
        for deployment in router.deployments()
        if deployment.replica.failure is None
    }


async def _drain(completions: Completions, batches: Batches, console: Console) -> None:
    """Refuse new requests, and wait for the running ones."""
    completions.close()
    # Lines of batches are cut off, unbilled, and run again after the next start.
    await batches.stop()
    if completions.num_live:
        with suppress(OSError):  # the terminal may be closed
            console.print(f"Waiting for {completions.num_live} request(s) to end (Ctrl-C again: don't wait)...")
    await completions.wait_idle(DRAIN_TIMEOUT_S)


async def _load_models(router: Router, server: HttpServer, console: Console) -> None:
    """Check the files of all models, then load the models one by one, as two at once slow each other down.

    A model that cannot be served is left out. Raises ConfigError if no model is left.
    """
    await anyio.lowlevel.checkpoint()  # imports its backend now: 50 ms of the first request
    errors: list[Exception] = []
    for replica in router.replicas:
        await _leave_out_on_failure(replica, replica.check(), errors)
    for replica in [replica for replica in router.replicas if replica.failure is None]:
        if server.is_stopping:
            return
        console.print(f"Loading {replica.key} ...")
        started_s = time.monotonic()
        await _leave_out_on_failure(replica, replica.start(), errors)
        if replica.failure is None:
            console.print(f"Loading {replica.key} ... warm after {time.monotonic() - started_s:.1f} s")
    if errors and len(errors) == len(router.replicas):
        raise errors[-1]
    # These 70,000 objects stay; a full collection of them would pause all requests for 50 ms.
    gc.collect()
    gc.freeze()


async def _until_loaded(loading: asyncio.Task[None], server: HttpServer) -> None:
    """Wait at a stop for a model that is being loaded, which only the end of the process can interrupt."""
    if not loading.done():
        server.release_signals()
        await asyncio.wait([loading])


async def _leave_out_on_failure(replica: LocalReplica, step: Awaitable[None], errors: list[Exception]) -> None:
    """Run a step of loading a replica. If it fails, log the error and mark the replica as failed."""
    try:
        await step
    except (InferdError, OSError, RuntimeError, MemoryError) as error:
        replica.failure = str(error)
        errors.append(error)
        logger.error("model %s is not served: %s", replica.key, error)


async def _watch_files(router: Router, end: asyncio.Event) -> None:
    """Check the files of the models each second until `end`."""
    while not end.is_set():
        await router.look_at_files()
        with suppress(TimeoutError):
            async with asyncio.timeout(FILE_CHECK_S):
                await end.wait()
