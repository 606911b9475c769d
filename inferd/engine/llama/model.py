"""Model: one GGUF file with its weights, which other models may share, and a vocabulary of its own."""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path
from typing import Any

from inferd.engine.embeddings.head import ClassificationHead
from inferd.engine.embeddings.pairs import PairFormat
from inferd.engine.embeddings.pooling import Pooling
from inferd.engine.grammar.compiler import ConstraintCompiler
from inferd.engine.llama.library import Library
from inferd.engine.llama.vocabulary import Vocabulary, grammar_tokenizer, grammar_vocabulary
from inferd.errors import ConfigError

logger = logging.getLogger(__name__)

_METADATA_BYTES = 256
_POOLINGS = {"1": Pooling.MEAN, "2": Pooling.CLS, "3": Pooling.LAST, "4": Pooling.RANK}
"""llama.h, enum llama_pooling_type; 0 is none."""
_NON_CAUSAL = frozenset(
    {
        "bert",
        "dream",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llada",
        "llada-moe",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
    }
)
"""Architectures that attend to later tokens too, whatever the header says (llama-model.cpp, create_memory)."""
_SOFTMAX_HEADS = frozenset({"qwen3", "qwen3vl"})
"""Architectures whose outputs of a classification head llama.cpp makes probabilities (llama-graph.cpp,
build_pooling)."""
_HEAD_OF = {"jina-bert-v2": "cls.weight"}
_HEAD = "cls.output.weight"
"""Tensor that ends a classification head, by architecture."""


class Model:
    """A loaded model; closed after every context made from it.

    Attributes:
        trained_context: tokens of context that the model was trained for.
        architecture: llama.cpp's name of it, such as `qwen3`.
        title: name of the model in the header, such as `Qwen3 0.6B`; None if it has none.
        window_size: tokens that a sliding window sees; 0 without one.
        has_cells: whether its memory has a cell for each token, perhaps beside a recurrent state.
        is_causal: whether a token attends to those before it only.
        is_for_embeddings: whether it was made for embeddings, perhaps for text too.
        head: its classification head; a model with one makes neither text nor embeddings.
    """

    def __init__(
        self,
        library: Library,
        path: Path,
        *,
        n_gpu_layers: int,
        header_only: bool = False,
        pooling: Pooling | None = None,
    ) -> None:
        """Load the model. Raises ConfigError if llama.cpp cannot read the file, or the model cannot be served.

        Args:
            header_only: read everything except the weights, to see whether the file can be served.
            pooling: replaces the file's.
        """
        self.library = library
        self.path = path
        api = library.api
        self._weights = library.weights.acquire(path, n_gpu_layers=n_gpu_layers, header_only=header_only)
        self.handle: Any = self._weights.handle
        handle = self.handle
        if api.llama_model_has_encoder(handle) or not api.llama_model_has_decoder(handle):
            self.close()
            raise ConfigError(f"{path}: this model has an encoder; only decoder-only text models can be served")
        self.vocabulary = Vocabulary(library, api.llama_model_get_vocab(handle), self._metadata)
        self.trained_context: int = api.llama_model_n_ctx_train(handle)
        self.is_offloaded: bool = n_gpu_layers != 0 and api.llama_supports_gpu_offload()
        self.window_size: int = api.llama_model_n_swa(handle)
        self.is_recurrent: bool = api.llama_model_is_recurrent(handle) or api.llama_model_is_hybrid(handle)
        self.has_cells: bool = not api.llama_model_is_recurrent(handle)
        self.embedding_size: int = api.llama_model_n_embd_out(handle)
        architecture = self.architecture = self._metadata("general.architecture") or ""
        self.title: str | None = self._metadata("general.name") or None
        self.num_parameters: int = api.llama_model_n_params(handle)
        is_causal = self._metadata(f"{architecture}.attention.causal") != "false"
        self.is_causal: bool = is_causal and architecture not in _NON_CAUSAL
        declared = self._metadata(f"{architecture}.pooling_type")
        self.pooling = pooling or self._pooling(declared)
        self.is_for_embeddings: bool = not self.is_causal or declared in _POOLINGS or pooling is not None
        self.head = self._head() if self.pooling is Pooling.RANK else None
        if header_only:  # comes before each loading, so that a warning comes once
            for repair in self.vocabulary.repairs:
                logger.warning("%s: %s", path, repair)
        fault = self._fault()
        if fault is not None:
            self.close()
            raise ConfigError(f"{path}: {fault}")

    def _fault(self) -> str | None:
        """Return why the model cannot be served, or None."""
        if self.makes_text and not self.vocabulary.end_of_generation:
            return (
                "the file names no token that ends an answer, so that none would end; set "
                "tokenizer.ggml.eos_token_id in it, such as with gguf_new_metadata.py"
            )
        if not self.vocabulary.has_blank:
            return (
                "the vocabulary has no token for the blank (▁, U+2581), and none for its bytes, so that "
                "no text can be tokenised; convert the model again"
            )
        if self.head is None:
            return None
        if not self._has_head:
            return (
                "its pooling is rank, and the file has no classification head "
                f"({_HEAD}), so that every score would be meaningless; convert the model again"
            )
        if self.head.is_softmax and len(self.head.labels) == 1:
            return "its classification head has one label, for which llama.cpp returns 1 whatever the input is"
        if self.rerank_template is None and not self.vocabulary.pair_frames()[1]:
            return (
                "nothing would stand between query and document: the file has no tokenizer.chat_template.rerank, and "
                "its vocabulary adds neither EOS nor SEP; write that template into it, such as with "
                "gguf_new_metadata.py --chat-template"
            )
        return None

    def _pooling(self, declared: str | None) -> Pooling:
        """Return the pooling that the header declares. Converters of BERT's kin write none for a reranker, whose
        classification head then tells."""
        if declared is None and not self.is_causal and self._has_head:
            return Pooling.RANK
        return _POOLINGS.get(declared or "", Pooling.MEAN)

    @property
    def _has_head(self) -> bool:
        return self.library.has_tensor(self.path, _HEAD_OF.get(self.architecture, _HEAD))

    def _head(self) -> ClassificationHead:
        api = self.library.api
        names = [
            api.llama_model_cls_label(self.handle, index) for index in range(api.llama_model_n_cls_out(self.handle))
        ]
        labels = (name.decode("utf-8", "replace") if name else f"LABEL_{index}" for index, name in enumerate(names))
        return ClassificationHead(tuple(labels), is_softmax=self.architecture in _SOFTMAX_HEADS)

    @property
    def makes_text(self) -> bool:
        return self.is_causal and self.head is None

    @property
    def rerank_template(self) -> str | None:
        """Text with places for a query and a document, if the file has one."""
        template: bytes | None = self.library.api.llama_model_chat_template(self.handle, b"rerank")
        return template.decode("utf-8", "replace") if template else None

    def pair_format(self) -> PairFormat:
        """Return how query and document are written for the head. Raises ConfigError for a wrong template."""
        if self.rerank_template is None:
            return PairFormat.framed(self.vocabulary.pair_frames(), self.vocabulary)
        try:
            return PairFormat.of_template(self.rerank_template, self.vocabulary)
        except ConfigError as error:
            raise ConfigError(f"{self.path}: {error.message}") from error

    def _metadata(self, key: str) -> str | None:
        """Return a value of the file's header as text; None if it has none."""
        buffer = ctypes.create_string_buffer(_METADATA_BYTES)
        num_bytes = self.library.api.llama_model_meta_val_str(self.handle, key.encode(), buffer, _METADATA_BYTES)
        return buffer.value.decode("utf-8", "replace") if num_bytes >= 0 else None

    @property
    def quantization(self) -> str | None:
        """Kind of most weights, such as `Q4_K_M`; None if the header does not say or llama.cpp has no name for it."""
        kind = self._metadata("general.file_type")
        return None if kind is None else _file_types(self.library.api).get(kind)

    @property
    def chat_template(self) -> str | None:
        """The Jinja source that the file carries, if any. Raises ConfigError if it is not UTF-8."""
        template: bytes | None = self.library.api.llama_model_chat_template(self.handle, None)
        try:
            return template.decode("utf-8") if template else None
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"{self.path}: tokenizer.chat_template is not UTF-8 (byte {error.start}); name a Jinja file as "
                "chat_template in models.toml"
            ) from error

    def constraint_compiler(self) -> ConstraintCompiler:
        """Return a new compiler for the vocabulary (some 0.4 s), to be closed before the model."""
        data = grammar_vocabulary(self.vocabulary)
        return ConstraintCompiler(grammar_tokenizer(self.vocabulary, data), data)

    @property
    def kv_bytes_per_cell(self) -> int:
        """Bytes that one token's keys and values take at f16: layers x kv heads x (key + value size) x 2. With latent
        attention (MLA) no values are kept."""
        api = self.library.api
        head_size = api.llama_model_n_embd(self.handle) // api.llama_model_n_head(self.handle)
        key_size = int(self._attention("key_length") or head_size)
        value_size = int(self._attention("value_length") or head_size)
        if self._attention("key_length_mla") is not None:
            value_size = 0
        num_heads = api.llama_model_n_layer(self.handle) * api.llama_model_n_head_kv(self.handle)
        return int(num_heads * (key_size + value_size) * 2)

    def close(self) -> None:
        """Free the model, once no thread reads its vocabulary."""
        if hasattr(self, "vocabulary"):  # not of a model that was refused
            self.vocabulary.close()
        self.library.weights.release(self._weights)

    def _attention(self, key: str) -> str | None:
        return self._metadata(f"{self._metadata('general.architecture')}.attention.{key}")


def _file_types(api: Any) -> dict[str, str]:
    """Return the values of llama.h's enum llama_ftype -> their names, without what all of them begin with."""
    prefix = "LLAMA_FTYPE_"
    found = {name.removeprefix(prefix): getattr(api, name) for name in dir(api) if name.startswith(prefix)}
    return {str(value): name.removeprefix("ALL_").removeprefix("MOSTLY_") for name, value in found.items()}
