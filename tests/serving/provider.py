"""A whole inferd within a test, save weights and socket: real ledger, engine thread, deployments, serving and ASGI app.

Only llama.cpp is replaced: `local_replica` gets a model of bytes and a runner that the test can hold back.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx

from inferd.config import Aliases, Config, DeploymentConfig, ModelConfig, ServerConfig
from inferd.deployments import local_replica
from inferd.deployments.router import Router
from inferd.engine.compute_turn import ComputeTurn
from inferd.engine.core import EngineCore
from inferd.engine.embeddings.head import ClassificationHead
from inferd.engine.embeddings.pairs import PairFormat
from inferd.engine.grammar.compiler import ConstraintCompiler
from inferd.engine.model_core import ModelCore
from inferd.instants import wall_clock_ms
from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.identity.authenticator import Authenticator
from inferd.ledger.requests.settlement import begin_epoch
from inferd.ledger.storage.client import LedgerClient
from inferd.ledger.storage.data_dir import DataLock
from inferd.ledger.storage.store import Store
from inferd.ledger.storage.writer import LedgerWriter
from inferd.limits.rate_limits import RateLimits
from inferd.limits.ticket import unlimited_ticket
from inferd.price import PPM, Price, ServiceTier
from inferd.sealed import KeyRing
from inferd.server.app import build_app
from inferd.server.errors import encoded_error
from inferd.server.services import Services
from inferd.serving.batches.batch_context import BatchContext
from inferd.serving.batches.batches import RETRY_TICKS, Batches
from inferd.serving.completion import Completion
from inferd.serving.completions import Completions
from inferd.serving.endpoints.chat import ChatCompletions
from inferd.serving.endpoints.endpoint import Call
from inferd.serving.file_store import FileStore
from inferd.serving.holds import Holds
from inferd.serving.responses.response_store import ResponseStore
from inferd.serving.responses.stored_responses import StoredResponses
from inferd.serving.ticket_issuer import TicketIssuer
from inferd.wire.openai.chat_request import ChatRequest, parse_chat_request
from tests.fake_embedder import FakeEmbedder, fake_model_core
from tests.fakes import BEGIN, END, ByteTokenizer, FakeRunner, constraint_compiler

PRICED = "local/tiny"
FREE = "local/tiny-free"
TIERED = "local/tiny-tiered"
TIMED = "local/tiny-timed"
INPUT_NANOUSD = 2
OUTPUT_NANOUSD = 5
MAX_CONTEXT = 256
DEFAULT_MAX_TOKENS = 16
TEMPLATE = (
    "{% for message in messages %}<|begin|>{{ message.role }}\n{{ message.content }}<|end|>{% endfor %}"
    "<|begin|>assistant:"
)
PATIENCE_S = 20.0
"""How long a test waits for what must come before it calls it a hang; asserts nothing about speed."""


class PacedRunner(FakeRunner):
    """Computes every step at once, unless the test holds it back and allows steps one by one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._changed = threading.Condition()
        self._steps_left: int | None = None
        self.waits = False
        """Whether a step is ready and not allowed yet."""

    def hold_back(self) -> None:
        with self._changed:
            self._steps_left = 0

    def allow(self, n_steps: int) -> None:
        with self._changed:
            assert self._steps_left is not None, "it was held back before"
            self._steps_left += n_steps
            self._changed.notify()

    def let_go(self) -> None:
        with self._changed:
            self._steps_left = None
            self._changed.notify()

    def execute(self, batch: Any) -> int:
        with self._changed:
            self.waits = self._steps_left == 0
            self._changed.wait_for(lambda: self._steps_left != 0)
            self.waits = False
            if self._steps_left is not None:
                self._steps_left -= 1
        return super().execute(batch)


class FakeModel:
    """What `load_model` returns, of bytes."""

    vocabulary = ByteTokenizer()
    library = SimpleNamespace(version="none")

    embedding_size = FakeEmbedder.embedding_size
    architecture, title, num_parameters, quantization, trained_context = "fake", None, 134_515_008, "Q4_1", 512

    def __init__(
        self,
        chat_template: str | None = TEMPLATE,
        *,
        is_causal: bool = True,
        head: ClassificationHead | None = None,
    ) -> None:
        self.chat_template = chat_template
        self.is_causal = is_causal
        self.makes_text = is_causal and head is None
        self.is_for_embeddings = not is_causal
        self.head = head
        self.is_offloaded = False
        self.closed = False

    def pair_format(self) -> PairFormat:
        return PairFormat.framed(((BEGIN,), (END,), ()), self.vocabulary)

    def constraint_compiler(self) -> ConstraintCompiler:
        return constraint_compiler()

    def close(self) -> None:
        self.closed = True


class Provider:
    """Attributes:
    runner: the weights that are not there; set once the engine has started.
    key: of team `acme`, which has `credit_nanousd` and nothing else.
    ahead_ms: how far the clock of batches runs ahead.
    steady_ms: the clock of the rate limits, which stands still; of nothing else.
    """

    def __init__(self, folder: Path, make_runner: Callable[..., PacedRunner], make_writer: Callable[[Store], Any]):
        self.make_runner = make_runner
        self.runner: PacedRunner = None  # type: ignore[assignment]
        self.data_dir = folder / "data"
        self.lock = DataLock(self.data_dir)
        self.lock.acquire()
        self.store = Store(self.data_dir, self.lock)
        self.epoch = begin_epoch(self.store, wall_clock_ms())
        with self.store.immediate() as conn:
            operations.create_team(conn, "acme", "academic", by=operations.Author("test", wall_clock_ms()))
            self.key = operations.create_key(conn, "acme", by=operations.Author("test", wall_clock_ms())).key
        self.writer: LedgerWriter = make_writer(self.store)
        self.router = Router.from_config(_config(folder))
        self.holds = Holds(self.writer, epoch=self.epoch, clock_ms=wall_clock_ms)
        self.completions = Completions(self.holds)
        self.reader = self.store.connect()
        self.authenticator = Authenticator(self.store)
        self.ledger = LedgerClient(self.store, self.writer)
        self.steady_ms = 10**9
        self.limits = RateLimits(lambda: self.steady_ms, lambda: self.router.load)
        self.ticket_issuer = TicketIssuer(self.limits, self.authenticator, wall_clock_ms, "ops@example.com")
        self.ahead_ms = 0
        self.files = FileStore(folder / "data")
        self.start_batches_anew()
        keys = KeyRing(self.data_dir)
        self.response_store = ResponseStore(self.data_dir, keys)
        self.response_store.scan()
        self.responses = StoredResponses(self.response_store, self.ledger, wall_clock_ms, days=self.responses_days)
        self.services = Services(
            self.router,
            self.completions,
            self.authenticator,
            self.ledger,
            self.ticket_issuer,
            self.files,
            self.batches,
            self.responses,
        )
        self.app = build_app(self.services, ServerConfig(strict=self.strict))
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        headers = {"authorization": f"Bearer {self.key}"}
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)

    @property
    def num_in_inbox(self) -> int:
        """Messages that the engine's thread has not taken in."""
        (replica,) = self.router.replicas
        return replica._engine._inbox.qsize()

    def limit_live_requests(self, number: int) -> None:
        """Let the engine take no more live requests than that."""
        (replica,) = self.router.replicas
        replica._engine._backlog._max_requests = number

    reuses = False
    strict = False
    responses_days = 0

    def build_core(self, model: FakeModel, config: ModelConfig, _: ComputeTurn) -> ModelCore:
        # Nothing is shared unless a test says so: what a request costs does not depend on the ones before it.
        memory = config.kv_memory
        self.runner = self.make_runner(
            max_sequences=memory.n_seq_max,
            max_running=memory.n_running_max,
            max_rows=config.n_ubatch,
            cells_per_sequence=memory.max_context,
            reuses=self.reuses,
        )
        generation = EngineCore(self.runner) if model.makes_text else None
        num_labels = 0 if model.head is None else len(model.head.labels)
        return fake_model_core(generation, max_rows=config.n_ubatch, is_causal=model.is_causal, num_labels=num_labels)

    def start_batches_anew(self, *, retry_ticks: int = RETRY_TICKS, **options: Any) -> None:
        """As another server on the same folder would. `options`: of a BatchContext."""
        self.batch_context = BatchContext(
            self.store,
            self.ledger,
            self.files,
            self.router,
            self.completions,
            self.authenticator,
            self.ticket_issuer,
            encoded_error,
            lambda: wall_clock_ms() + self.ahead_ms,
            strict=self.strict,
            **options,
        )
        self.batches = Batches(self.batch_context, self.writer, tick_s=0.02, retry_ticks=retry_ticks)
        self.batches.sweep_disk()

    @asynccontextmanager
    async def batching(self) -> AsyncIterator[Batches]:
        """Batches run meanwhile, as in a server."""
        running = asyncio.create_task(self.batches.run())
        try:
            yield self.batches
        finally:
            await self.batches.stop()
            await running

    def grant(self, nanousd: int, team: str = "acme") -> None:
        with self.store.immediate() as conn:
            operations.grant_credit(
                conn, team, operations.NewGrant(nanousd), by=operations.Author("test", wall_clock_ms())
            )

    def new_key(self, team: str, **options: Any) -> str:
        with self.store.immediate() as conn:
            if team not in {known.team for known in operations.list_teams(conn)}:
                operations.create_team(conn, team, "academic", by=operations.Author("test", wall_clock_ms()))
            request = operations.KeyRequest(**options)
            return operations.create_key(conn, team, request, by=operations.Author("test", wall_clock_ms())).key

    async def chat(self, **fields: Any) -> httpx.Response:
        return await self.client.post("/v1/chat/completions", json=chat_body(**fields))

    def begin(self, request_id: str, **fields: Any) -> Completion:
        """As the handler does it, without HTTP and rate limits."""
        endpoint = ChatCompletions(chat_request(**fields))
        call = Call(
            request_id=request_id,
            caller=self.authenticator.authenticate(self.key, wall_clock_ms()),
            endpoint=endpoint,
            deployment=self.router.find(endpoint.model),
            tier=endpoint.tier,
            cache=endpoint.cache_hints,
            received_ns=0,
        )
        return self.completions.begin(call, unlimited_ticket())

    async def idle(self) -> None:
        """Every request has ended, in the books too."""
        assert await self.completions.wait_idle(PATIENCE_S), "a request never ends"

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for what the engine's or the writer's thread will bring about."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.001)

    def rows(self, table: str) -> list[dict[str, Any]]:
        cursor = self.reader.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def hold_states(self) -> list[str]:
        return sorted(hold["state"] for hold in self.rows("holds"))

    def usage_row(self) -> dict[str, Any]:
        (row,) = self.rows("usage")
        return row

    def credit(self) -> Any:
        return operations.show_credit(self.reader, "acme", now_ms=wall_clock_ms())

    def assert_books_closed(self) -> None:
        """Nothing held, one usage row for each hold, no settlement above its hold, every checksum and sum right."""
        with self.store.reading() as conn:
            assert [str(finding) for finding in audit(conn).findings] == []
        holds = {hold["request_id"]: hold for hold in self.rows("holds")}
        assert [hold for hold in holds.values() if hold["state"] == "held"] == []
        for row in self.rows("usage"):
            hold = holds.pop(row["request_id"], None)
            priced = hold is not None and hold["free"] is None
            assert priced == (row["input_picousd"] is not None), "a priced hold for each priced request alone"
            assert hold is None or row["cost_nanousd"] <= hold["amount_nanousd"]
        assert holds == {}, "a hold without a usage row"


@asynccontextmanager
async def running_provider(
    folder: Path,
    monkeypatch: Any,
    *,
    make_runner: Callable[..., PacedRunner] = PacedRunner,
    make_writer: Callable[[Store], Any] = LedgerWriter,
    credit_nanousd: int = 1_000_000,
    started: bool = True,
    is_causal: bool = True,
    head: ClassificationHead | None = None,
) -> AsyncIterator[Provider]:
    """Starts everything; at the end stops it as `inferd serve` does, and audits the books."""
    provider = Provider(folder, make_runner, make_writer)
    monkeypatch.setattr(
        local_replica, "load_model", lambda path, *, n_gpu_layers, pooling: FakeModel(is_causal=is_causal, head=head)
    )
    monkeypatch.setattr(local_replica, "build_core", provider.build_core)
    if credit_nanousd:
        provider.grant(credit_nanousd)
    provider.writer.start()
    (replica,) = provider.router.replicas
    try:
        with closing(provider.reader), closing(provider.authenticator), closing(provider.ledger):
            if started:
                await replica.start()
            yield provider
            if provider.runner is not None:
                provider.runner.let_go()
            await provider.client.aclose()
            await replica.stop()
            await provider.idle()
            await provider.responses.stop()
            provider.assert_books_closed()
            assert provider.runner is None or provider.runner.closed or not is_causal or head, "the engine was released"
    finally:
        if provider.runner is not None:
            provider.runner.let_go()
        provider.writer.stop()
        provider.lock.release()


def _config(folder: Path) -> Config:
    source = folder / "tiny.gguf"
    source.write_bytes(b"weights")
    model = ModelConfig("tiny", source, str(source), max_context=MAX_CONTEXT, n_parallel=4, n_ubatch=64)
    price = Price(input_picousd=INPUT_NANOUSD * 1000, output_picousd=OUTPUT_NANOUSD * 1000)
    deployments = {
        name: DeploymentConfig(name, "tiny", True, price_of, DEFAULT_MAX_TOKENS)
        for name, price_of in ((PRICED, price), (FREE, None), (TIMED, Price.by_time(1_000_000)))
    }
    tiers = {ServiceTier.DEFAULT: PPM, ServiceTier.BATCH: PPM // 2, ServiceTier.PRIORITY: 3 * PPM}
    deployments[TIERED] = replace(deployments[PRICED], name=TIERED, tiers_ppm=tiers | {ServiceTier.FLEX: PPM // 2})
    aliases = Aliases({"gpt-4o-mini": PRICED, "claude-haiku-*": FREE})
    return Config(folder / "models.toml", {"tiny": model}, deployments, aliases=aliases)


def chat_body(content: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": PRICED, "messages": [{"role": "user", "content": content}], **fields}


def chat_request(**fields: Any) -> ChatRequest:
    return parse_chat_request(json.dumps(chat_body(**fields)).encode())


def prompt_of(content: str = "hello") -> list[int]:
    """The token ids of a conversation that has one message, derived by hand from TEMPLATE."""
    return [257, *b"user\n", *content.encode(), 256, 257, *b"assistant:"]


def cost_of(n_prompt: int, n_completion: int) -> int:
    return n_prompt * INPUT_NANOUSD + n_completion * OUTPUT_NANOUSD
