"""LocalReplica: a replica in this process, one engine on one GGUF file."""

from __future__ import annotations

import asyncio
import hashlib
import logging

from inferd import __version__
from inferd.chat.format import ChatFormat
from inferd.chat.template import ChatTemplate
from inferd.config import ModelConfig, shards_of
from inferd.deployments.capabilities import ModelFacts, model_facts
from inferd.deployments.model_files import ModelFiles
from inferd.engine.compute_turn import ComputeTurn
from inferd.engine.cost_model import Speed
from inferd.engine.embeddings.head import ClassificationHead
from inferd.engine.embeddings.pairs import PairFormat
from inferd.engine.engine import Engine, EngineState, OutputStream
from inferd.engine.grammar.compiler import ConstraintCompiler
from inferd.engine.llama.loading import build_core, embedding_limit, fitting_memory, load_model
from inferd.engine.llama.model import Model
from inferd.engine.messages import AddRequest, EmbedRequest
from inferd.engine.model_core import ModelCore
from inferd.errors import ConfigError
from inferd.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


def check_model(config: ModelConfig) -> ModelFacts:
    """Return the facts of a model: read its files except the weights, and try its templates. Takes tenths of a second.
    Raises ConfigError if the model cannot be served."""
    model = load_model(config.source, n_gpu_layers=config.n_gpu_layers, header_only=True, pooling=config.pooling)
    try:
        fitting_memory(model, config)
        if model.head is not None:
            model.pair_format()
        return model_facts(config, model, _chat_format(config, model))
    finally:
        model.close()


class LocalReplica:
    """One model with its engine. Belongs to the event loop. Attributes without a value in `__init__` are set once it is
    ready.

    Attributes:
        facts: what is known of the model; None until `check` or `start` has read its header.
        failure: why the model is not served, or None; other models are.
        makes_text: False for a model that makes embeddings or scores only; it has no `constraints` then.
        head: classification head of a model that makes scores only, else None.
        pair_format: how query and document are written; of a model with a head.
        chats: whether it has a chat template, and so a `chat_format`.
        is_offloaded: whether layers of the model are on a GPU.
        embedding_size: numbers in a vector.
        max_embedding_tokens: maximum tokens of an embedding input.
    """

    tokenizer: Tokenizer
    makes_text: bool
    head: ClassificationHead | None
    pair_format: PairFormat
    chats: bool
    chat_format: ChatFormat
    constraints: ConstraintCompiler
    fingerprint: str
    is_offloaded: bool
    embedding_size: int
    max_embedding_tokens: int

    def __init__(self, config: ModelConfig, compute_turn: ComputeTurn, *, strips_attribution: bool = True) -> None:
        """Create a replica that is not loaded.

        Args:
            compute_turn: that of the device, shared with every other replica on it.
            strips_attribution: see ChatFormat.
        """
        self._compute_turn = compute_turn
        self._strips_attribution = strips_attribution
        self._config = config
        self._engine = Engine(config.key, self._build_core, config.source)
        self._files: ModelFiles | None = None
        self.facts: ModelFacts | None = None
        self.failure: str | None = None

    @property
    def key(self) -> str:
        return self._config.key

    @property
    def is_ready(self) -> bool:
        return self.failure is None and self._engine.state is EngineState.READY

    @property
    def load(self) -> float:
        """0 while every request that is not batch runs, 1 once as many again wait."""
        n_parallel = self._config.n_parallel
        return min(1.0, max(0.0, (self._engine.num_urgent - n_parallel) / n_parallel))

    @property
    def num_live(self) -> int:
        """Requests that wait or run."""
        return self._engine.num_live

    @property
    def speed(self) -> Speed:
        """Last reported speed of all sequences together."""
        return self._engine.speed

    @property
    def n_parallel(self) -> int:
        """Maximum number of requests that run at once."""
        return self._config.n_parallel

    @property
    def max_context(self) -> int:
        """Maximum tokens of one request, prompt and completion together."""
        return self._config.max_context

    async def check(self) -> None:
        """Raise ConfigError if the model cannot be served; see `check_model`."""
        self.facts = await asyncio.to_thread(check_model, self._config)

    async def start(self) -> None:
        """Load and warm up the model (seconds to minutes). Raises ConfigError, also if another process writes to its
        files meanwhile, and RuntimeError if llama.cpp cannot compute."""
        files = self._files = ModelFiles(shards_of(self._config.source))
        await self._engine.start()
        if self.failure is not None:  # `look_at_files` has stopped it
            raise ConfigError(self.failure)
        replaced = files.replaced()
        if replaced is not None:
            raise ConfigError(f"{replaced}: the file was replaced while it was loaded; start again")

    async def look_at_files(self) -> None:
        """Stop the model, unbilled, if another process writes to its files."""
        reason = None if self._files is None else self._files.change()
        if reason is None:
            return
        self.failure = reason
        logger.error(
            "model %s is not served any more: %s. Replace a model's file by a rename (mv), not in place; then start "
            "the server again",
            self.key,
            reason,
        )
        self._engine.fail(reason)
        await self.stop()

    def submit(self, request: AddRequest | EmbedRequest) -> OutputStream:
        """Queue a request. Raises OverloadedError."""
        return self._engine.submit(request)

    def abort(self, request_id: str) -> None:
        self._engine.abort(request_id)

    async def stop(self) -> None:
        """End live requests with an error, free the model and release its files. Does nothing if it has stopped."""
        if hasattr(self, "constraints"):  # also of a failed engine: compiling reads its vocabulary
            await asyncio.to_thread(self.constraints.close)
        await self._engine.stop()
        if self._files is not None:
            self._files.close()
            self._files = None

    def _build_core(self) -> ModelCore:
        """Load the model, on the engine thread. The attributes set here are read only after the engine is ready."""
        config = self._config
        model = load_model(config.source, n_gpu_layers=config.n_gpu_layers, pooling=config.pooling)
        self.tokenizer = model.vocabulary
        self.is_offloaded = model.is_offloaded
        self.embedding_size = model.embedding_size
        self.max_embedding_tokens = embedding_limit(model, config)
        self.makes_text = model.makes_text
        self.head = model.head
        try:
            if model.head is not None:
                self.pair_format = model.pair_format()
            chat_format = _chat_format(config, model, strips_attribution=self._strips_attribution)
        except ConfigError:
            model.close()
            raise
        self.chats = chat_format is not None
        if chat_format is not None:
            self.chat_format = chat_format
            model.vocabulary.show(chat_format.notation(model.vocabulary.control_texts))
        self.facts = model_facts(config, model, chat_format)
        if self.makes_text:
            self.constraints = model.constraint_compiler()
        template = _template(config, model) if self.chats else None
        self.fingerprint = self._fingerprint(model.library.version, template or "")
        return build_core(model, config, self._compute_turn)

    def _fingerprint(self, llama_version: str, template: str) -> str:
        """Return an id of build, model and configuration: equal ones, and only those, give equal output for a seed."""
        config = self._config
        parts = (
            __version__,
            llama_version,
            config.source.name,
            [shard.stat().st_size for shard in shards_of(config.source)],
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


def _template(config: ModelConfig, model: Model) -> str | None:
    return config.chat_template or model.chat_template


def _chat_format(config: ModelConfig, model: Model, *, strips_attribution: bool = True) -> ChatFormat | None:
    """Return the chat format, or None for a model for scores, or for embeddings without a template. Raises
    ConfigError."""
    if not model.makes_text:
        return None
    source = _template(config, model)
    if source is None and model.is_for_embeddings:
        return None
    name = f"chat_template {config.chat_template_path or f'of {config.source}'}"
    return ChatFormat(ChatTemplate(source, model.vocabulary, name=name), strips_attribution=strips_attribution)
