"""A replica in this process: one engine on one GGUF file."""

from __future__ import annotations

import asyncio
import hashlib

from inferd import __version__
from inferd.config import ModelConfig
from inferd.engine.compute_turn import ComputeTurn
from inferd.engine.constraint import ConstraintCompiler
from inferd.engine.engine import Engine, EngineState
from inferd.engine.llama.loading import build_core, embedding_limit, load_model
from inferd.engine.llama.model import Model
from inferd.engine.messages import AddRequest, EmbedRequest
from inferd.engine.model_core import ModelCore
from inferd.engine.output_stream import OutputStream
from inferd.errors import ConfigError
from inferd.openai.chat_format import ChatFormat
from inferd.openai.chat_template import ChatTemplate
from inferd.tokenizer import Tokenizer

_MIB = 2**20


class LocalReplica:
    """Belongs to the event loop. What has no value in `__init__` is there once it is ready.

    Attributes:
        makes_text: False for a model that makes embeddings only; then it has no `constraints` either.
        chats: it has a chat template, and so a `chat_format`.
        embedding_size: numbers of a vector.
        max_embedding_tokens: most tokens of one input.
    """

    tokenizer: Tokenizer
    makes_text: bool
    chats: bool
    chat_format: ChatFormat
    constraints: ConstraintCompiler
    fingerprint: str
    embedding_size: int
    max_embedding_tokens: int

    def __init__(self, config: ModelConfig, compute_turn: ComputeTurn) -> None:
        """`compute_turn` is that of the device, shared with every other replica on it."""
        self._compute_turn = compute_turn
        self._config = config
        self._engine = Engine(config.key, self._build_core)

    @property
    def key(self) -> str:
        return self._config.key

    @property
    def is_ready(self) -> bool:
        return self._engine.state is EngineState.READY

    @property
    def load(self) -> float:
        """0 while every request has a sequence of its own, 1 once as many again wait for one; without batches."""
        n_parallel = self._config.n_parallel
        return min(1.0, max(0.0, (self._engine.num_urgent - n_parallel) / n_parallel))

    @property
    def n_parallel(self) -> int:
        """Most requests that run at once."""
        return self._config.n_parallel

    @property
    def max_context(self) -> int:
        """Most tokens of one request, prompt and completion together."""
        return self._config.max_context

    async def start(self) -> None:
        """Loads and warms up the model (seconds to minutes). Raises ConfigError, or what llama.cpp ran into."""
        await self._engine.start()

    def submit(self, request: AddRequest | EmbedRequest) -> OutputStream:
        """Queues a request. Raises OverloadedError."""
        return self._engine.submit(request)

    def abort(self, request_id: str) -> None:
        self._engine.abort(request_id)

    async def stop(self) -> None:
        """Ends live requests with an error and frees the model."""
        if hasattr(self, "constraints"):  # of an engine that has failed too: they read its vocabulary
            await asyncio.to_thread(self.constraints.close)
        await self._engine.stop()

    def _build_core(self) -> ModelCore:
        """On the engine thread; what it sets here is read only after the engine reports that it is ready."""
        config = self._config
        model = load_model(config.source, n_gpu_layers=config.n_gpu_layers)
        self.tokenizer = model.vocabulary
        self.embedding_size = model.embedding_size
        self.max_embedding_tokens = embedding_limit(model, max_context=config.max_context, n_ubatch=config.n_ubatch)
        source = config.chat_template or model.chat_template
        self.makes_text = model.is_causal
        # A model made for vectors may do without a template; one for text had better not.
        self.chats = model.is_causal and not (source is None and model.is_for_embeddings)
        if self.chats:
            self._read_template(model, source)
        if self.makes_text:
            self.constraints = model.constraint_compiler()
        self.fingerprint = self._fingerprint(model.library.version, source or "")
        return build_core(
            model,
            memory=config.kv_memory,
            kv_layout=config.kv_layout,
            n_ubatch=config.n_ubatch,
            n_threads=config.n_threads,
            host_cache_bytes=config.host_cache_mib * _MIB,
            max_step_ms=config.max_step_ms,
            speculates=config.speculation,
            compute_turn=self._compute_turn,
        )

    def _read_template(self, model: Model, source: str | None) -> None:
        """Raises ConfigError; the model is then closed."""
        name = str(self._config.chat_template_path or self._config.source)
        try:
            self.chat_format = ChatFormat(ChatTemplate(source, self.tokenizer, name=name))
        except ConfigError:
            model.close()
            raise
        model.vocabulary.show(self.chat_format.notation(model.vocabulary.control_texts))

    def _fingerprint(self, llama_version: str, template: str) -> str:
        """Names build, model and configuration: equal ones, and only those, give equal output for an equal seed."""
        config = self._config
        parts = (
            __version__,
            llama_version,
            config.source.name,
            config.source.stat().st_size,
            config.max_context,
            config.n_parallel,
            config.kv_cells,
            config.kv_layout,
            config.n_ubatch,
            config.n_threads,
            config.n_gpu_layers,
            template,
        )
        return "fp_" + hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
