"""Capabilities of a deployment: what a request may ask of it, and what is known of the model behind it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inferd.chat.format import ChatFormat
from inferd.chat.reasoning_mode import ReasoningMode
from inferd.config import ModelConfig, shards_of
from inferd.engine.embeddings.head import ClassificationHead
from inferd.engine.llama.loading import embedding_limit
from inferd.engine.llama.model import Model

_DIGEST_BYTES = 2**20
_UNITS = ((10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Facts of a model's file and chat template, the same for all its deployments. Known once its header was read.

    Attributes:
        architecture: llama.cpp's name of it, such as `qwen3`.
        title: name of the model in the file's header, such as `Qwen3 0.6B`; None if it has none.
        quantization: kind of most weights, such as `Q4_K_M`; None if the header does not say.
        trained_context: tokens of context that the model was trained for.
        max_embedding_tokens: maximum tokens of an embedding input.
        file_bytes: size of all its files.
        digest: 64 hexadecimal digits that change with the files; not a hash of all their bytes, which takes minutes.
        modified_ms: when its first file was changed last, in ms since 1970.
        makes_text: False for a model that makes embeddings or scores only.
        head: classification head of a model that makes scores only, else None.
        chat_template: Jinja text in use; None if the model has no chats.
        native_tools: whether the template itself describes tools; else inferd describes them in the system prompt.
        efforts: values of `reasoning_effort` that the template tells apart, the highest first.
    """

    architecture: str
    title: str | None
    num_parameters: int
    quantization: str | None
    trained_context: int
    num_vocabulary: int
    embedding_size: int
    max_embedding_tokens: int
    file_bytes: int
    digest: str
    modified_ms: int
    makes_text: bool
    head: ClassificationHead | None
    chat_template: str | None
    native_tools: bool
    reasoning: ReasoningMode
    efforts: tuple[str, ...]

    @property
    def parameter_size(self) -> str:
        """Number of parameters as people write it, such as `1.5B` or `134.52M`."""
        return short_number(self.num_parameters)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Capabilities of one deployment.

    Attributes:
        name: `owner/name`.
        aliases: its other names and patterns of them, as models.toml writes them.
        context_length: most tokens of prompt and completion together; of one input, for embeddings and scores.
        max_output: most completion tokens of a request; None if the model makes no text.
        facts: None until the model's file was read.
    """

    name: str
    aliases: tuple[str, ...]
    context_length: int
    max_output: int | None
    facts: ModelFacts | None

    @property
    def is_chat(self) -> bool:
        """Whether it takes chats; True until that is known."""
        return self.facts is None or self.facts.chat_template is not None

    @property
    def makes_text(self) -> bool:
        """Whether it takes chats or prompts. Every deployment whose model has no classification head takes requests for
        embeddings."""
        return self.facts is None or self.facts.makes_text

    @property
    def output(self) -> str:
        """Modality of its answers: `text`, `embeddings`, `rerank` or `classification`."""
        if self.facts is None or self.facts.makes_text:
            return "text"
        head = self.facts.head
        if head is None:
            return "embeddings"
        return "rerank" if head.ranks else "classification"

    @property
    def tools(self) -> bool:
        """Whether requests may have tools: those of every chat, whatever its template says of tools."""
        return self.is_chat

    @property
    def structured_output(self) -> bool:
        """Whether answers can be bound to a schema or grammar: every text can."""
        return self.makes_text

    @property
    def reasoning(self) -> ReasoningMode:
        return ReasoningMode.NONE if self.facts is None else self.facts.reasoning


def model_facts(config: ModelConfig, model: Model, chat_format: ChatFormat | None) -> ModelFacts:
    """Return the facts of a model, whose weights need not be loaded. Reads some MB of its files."""
    files = [shard for shard in shards_of(config.source) if shard.is_file()]
    return ModelFacts(
        architecture=model.architecture,
        title=model.title,
        num_parameters=model.num_parameters,
        quantization=model.quantization,
        trained_context=model.trained_context,
        num_vocabulary=model.vocabulary.n_vocab,
        embedding_size=model.embedding_size,
        max_embedding_tokens=embedding_limit(model, config),
        file_bytes=sum(file.stat().st_size for file in files),
        digest=_digest(files),
        modified_ms=config.source.stat().st_mtime_ns // 1_000_000,
        makes_text=model.makes_text,
        head=model.head,
        chat_template=None if chat_format is None else chat_format.source,
        native_tools=chat_format is not None and chat_format.has_native_tools,
        reasoning=ReasoningMode.NONE if chat_format is None else chat_format.reasoning_mode,
        efforts=() if chat_format is None else chat_format.efforts,
    )


def short_number(number: int) -> str:
    """Return a number with its unit as Ollama writes it: whole, or B with one and M with two decimals."""
    for size, unit, decimals in _UNITS:
        if number >= size:
            value = number / size
            return f"{value:.0f}{unit}" if value.is_integer() else f"{value:.{decimals}f}{unit}"
    return str(number)


def _digest(files: Sequence[Path]) -> str:
    """Return a digest of the sizes, beginnings and ends of files; the beginning of a GGUF is its header."""
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(size.to_bytes(8, "big"))
        with path.open("rb") as file:
            digest.update(file.read(_DIGEST_BYTES))
            file.seek(max(_DIGEST_BYTES, size - _DIGEST_BYTES))
            digest.update(file.read(_DIGEST_BYTES))
    return digest.hexdigest()
