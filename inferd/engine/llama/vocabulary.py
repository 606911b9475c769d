"""A model's vocabulary: text to ids and back. Read-only after construction; any thread may use it."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from inferd.engine.llama.library import Library
from inferd.tokenizer import Segment

_NONE = -1
_GPT_2_END = 11
"""What llama.cpp takes for BOS and EOS of a BPE vocabulary whose file names none: a comma in most of them."""
_END_WORDS = ("end", "eot", "eom", "eos", "</s>")
_PIECE_BYTES = 64


class Vocabulary:
    """Implements the Tokenizer protocol over `llama_vocab`. The model that owns it must outlive it."""

    def __init__(self, library: Library, vocab: Any, declared: Mapping[str, str | None]) -> None:
        """`declared`: the ids that the file's header has for `bos` and `eos`, as text; None where it has none."""
        self.library = library
        self.handle = vocab
        api = library.api
        self.n_vocab: int = api.llama_vocab_n_tokens(vocab)
        self.repairs: list[str] = []
        """What was wrong in the file and what is done instead, as sentences."""
        is_eog = library.short.llama_vocab_is_eog
        self.end_of_generation = frozenset(token for token in range(self.n_vocab) if is_eog(vocab, token))
        self._adds_bos: bool = api.llama_vocab_get_add_bos(vocab)
        self._adds_eos: bool = api.llama_vocab_get_add_eos(vocab)
        bos = self._special("bos", api.llama_vocab_bos(vocab), declared["bos"])
        eos = self._special("eos", api.llama_vocab_eos(vocab), declared["eos"])
        self._frame = (bos if self._adds_bos else None, eos if self._adds_eos else None)
        self._frames_itself = bool(self.repairs)
        self._bos = self._frame[0]
        self.bos_text = "" if bos is None else self.text(bos)
        self.eos_text = "" if eos is None else self.text(eos)
        hidden = api.LLAMA_TOKEN_ATTR_CONTROL | api.LLAMA_TOKEN_ATTR_UNKNOWN
        attributes = library.short.llama_vocab_get_attr
        self._control = {token: self.text(token) for token in range(self.n_vocab) if attributes(vocab, token) & hidden}
        self._control_ids = {text: token for token, text in self._control.items() if text}
        self.control_texts: Sequence[str] = tuple(self._control_ids)
        self._shown: frozenset[int] = frozenset()
        self._pieces: dict[int, bytes] = {}
        self.max_token_bytes = max(len(self.piece(token)) for token in range(self.n_vocab))

    def encode(self, segments: Sequence[Segment], *, add_bos: bool = True) -> list[int]:
        """Token ids; control tokens are read in `special` segments only. BOS comes first, once, if it is asked for
        and the text does not bring it itself."""
        token_ids: list[int] = []
        for segment in segments:
            token_ids += self._tokenize(segment.text, special=segment.special)
        if add_bos and self._bos is not None and token_ids[:1] != [self._bos]:
            token_ids.insert(0, self._bos)
        return token_ids

    def encode_document(self, text: str) -> list[int]:
        if not self._frames_itself:
            return self._tokenize(text, special=False, frames=True)
        bos, eos = ([] if token is None else [token] for token in self._frame)
        return [*bos, *self._tokenize(text, special=False), *eos]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Control tokens by their names."""
        return b"".join(self._piece(token_id, special=True) for token_id in token_ids).decode("utf-8", "replace")

    def piece(self, token_id: int) -> bytes:
        """The token's bytes; b"" for control tokens."""
        piece = self._pieces.get(token_id)
        if piece is None:
            piece = self._pieces[token_id] = self._piece(token_id, special=token_id in self._shown)
        return piece

    def is_control(self, token_id: int) -> bool:
        """True for tokens that never reach the text."""
        return token_id in self._control and token_id not in self._shown

    def control_token(self, text: str) -> int | None:
        token_id = self._control_ids.get(text)
        return None if token_id in self._shown else token_id

    def show(self, texts: Collection[str]) -> None:
        """Control tokens that answers are written with: from now on their text is text that the model says; end tokens
        still have none. Comes before the first request."""
        self._shown = frozenset(self._control_ids[text] for text in texts) - self.end_of_generation
        self._pieces.clear()

    def text(self, token_id: int) -> str:
        """The token as prompts write it, control tokens included."""
        return self._piece(token_id, special=True).decode("utf-8", "replace")

    def _special(self, kind: str, token_id: int, declared: str | None) -> int | None:
        """The token that the file means by `kind`: llama.cpp's own default, which it gives where the file names none or
        one that is not there, is nothing that the model was trained with."""
        if token_id == _NONE:
            return None
        is_known = declared is not None and declared.isdecimal() and int(declared) < self.n_vocab
        if is_known or (declared is None and token_id != _GPT_2_END):
            return token_id
        is_end = any(word in self.text(token_id).casefold() for word in _END_WORDS)
        if kind == "eos" and not is_end:
            self.end_of_generation -= {token_id}
        wrong = "is missing" if declared is None else f"is {declared}, and the vocabulary has {self.n_vocab} tokens"
        self.repairs.append(f"tokenizer.ggml.{kind}_token_id {wrong}: the model is served without {kind.upper()}")
        return None

    def _piece(self, token_id: int, *, special: bool) -> bytes:
        assert 0 <= token_id < self.n_vocab, "token ids lie in the vocabulary"
        size = _PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(size)
            n_bytes = self.library.short.llama_token_to_piece(self.handle, token_id, buffer, size, 0, special)
            if n_bytes >= 0:
                return buffer.raw[:n_bytes]
            size = -n_bytes

    def _tokenize(self, text: str, *, special: bool, frames: bool = False) -> list[int]:
        """`frames` puts around it what the vocabulary asks for, such as [CLS] and [SEP]."""
        data = text.encode("utf-8")
        size = len(data) + 8
        while True:
            tokens = (ctypes.c_int32 * size)()
            n_tokens = self.library.api.llama_tokenize(self.handle, data, len(data), tokens, size, frames, special)
            if n_tokens >= 0:
                return tokens[:n_tokens]
            size = -n_tokens
