"""A model's vocabulary: text to ids and back, and as llguidance needs it. Any thread may use it, until it is closed."""

from __future__ import annotations

import ctypes
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from llguidance import LLTokenizer

from inferd.engine.grammar.trial import MAX_FORCED_BYTES, GrammarVocabulary, LongestMatch, tokenizer_of
from inferd.engine.llama.library import Library
from inferd.engine.llama.text_pieces import TextCutter
from inferd.errors import InvalidRequestError, OverloadedError
from inferd.tokenizer import NO_LIMITS, EncodeLimits, Segment

MAX_CPU_S = 2.0
"""Limit of processor time for one text, or for each million characters of a longer one."""
_CHARS = 2**20
_RETRY_AFTER_S = 5.0
_NONE = -1
_GPT_2_END = 11
"""llama.cpp's BOS and EOS of a BPE vocabulary whose file names none: in most vocabularies a comma."""
_END_WORDS = ("end", "eot", "eom", "eos", "</s>")
_PIECE_BYTES = 64
_BREAKS = "\n\r\t\x01\x02\x03"
"""A piece of a SentencePiece text that is not its first begins with one of these: else it would begin with a blank."""
_BLANK = "▁"
"""How SentencePiece tokens write a blank."""
_WHITE_SPACE = re.compile(r"\s+")


class Vocabulary:
    """Tokenizer over `llama_vocab`. The model that owns it closes it before it frees the native vocabulary.

    Args:
        metadata: return a value of the file's header by its key, as text; None if it has none.

    Attributes:
        repairs: faults of the file, and how each is mended, as sentences.
    """

    def __init__(self, library: Library, vocab: Any, metadata: Callable[[str], str | None]) -> None:
        self.library = library
        self.handle = vocab
        self._calls = threading.Condition()
        self._num_calls = 0
        self._is_closed = False
        api = library.api
        self.n_vocab: int = api.llama_vocab_n_tokens(vocab)
        self.repairs: list[str] = []
        is_eog = library.short.llama_vocab_is_eog
        self.end_of_generation = frozenset(token for token in range(self.n_vocab) if is_eog(vocab, token))
        self._adds_bos: bool = api.llama_vocab_get_add_bos(vocab)
        self._adds_eos: bool = api.llama_vocab_get_add_eos(vocab)
        bos = self._special("bos", api.llama_vocab_bos(vocab), metadata("tokenizer.ggml.bos_token_id"))
        eos = self._special("eos", api.llama_vocab_eos(vocab), metadata("tokenizer.ggml.eos_token_id"))
        self._bos = bos if self._adds_bos else None
        self.bos_text = "" if bos is None else self.text(bos)
        self.eos_text = "" if eos is None else self.text(eos)
        hidden = api.LLAMA_TOKEN_ATTR_CONTROL | api.LLAMA_TOKEN_ATTR_UNKNOWN
        attributes = library.short.llama_vocab_get_attr
        self._control = {token: self.text(token) for token in range(self.n_vocab) if attributes(vocab, token) & hidden}
        self._control_ids = {text: token for token, text in self._control.items() if text}
        self.control_texts: Sequence[str] = tuple(self._control_ids)
        self._shown: frozenset[int] = frozenset()
        self._pieces = [self._piece(token, special=False) for token in range(self.n_vocab)]
        self.max_token_bytes = max(map(len, self._pieces))
        self._frames = self._framing_tokens(bos, eos)
        self._collapses_blanks = (
            metadata("tokenizer.ggml.pre") == "whitespace" and metadata("tokenizer.ggml.model") != "whitespace"
        )
        self._read_texts()

    def _framing_tokens(self, bos: int | None, eos: int | None) -> tuple[list[int], list[int]]:
        """Return the tokens before and after a document. llama.cpp aborts if it is to add one that does not exist."""
        api, vocab = self.library.api, self.handle
        if self.repairs:
            behind = [eos] if self._adds_eos and eos is not None else []
            return [] if self._bos is None else [self._bos], behind
        is_wordpiece = api.llama_vocab_type(vocab) == api.LLAMA_VOCAB_TYPE_WPM
        added = [bos] if is_wordpiece or self._adds_bos else []
        if is_wordpiece:
            added.append(api.llama_vocab_sep(vocab))
        elif self._adds_eos:
            added.append(eos)
        if None in added or _NONE in added:
            return [], []
        frames = self._call(b"", special=False, frames=True)
        return (frames[:1], frames[1:]) if frames[:1] == [bos] else ([], frames)

    def pair_frames(self) -> tuple[list[int], list[int], list[int]]:
        """Return the tokens before a query, between query and document, and after the document, by the vocabulary's
        flags: `[BOS] query [EOS] [SEP] document [EOS]`, as llama-server has them."""
        api, vocab = self.library.api, self.handle
        sep = api.llama_vocab_sep(vocab)
        eos = api.llama_vocab_eos(vocab)
        ends = [token for token in [sep if eos == _NONE else eos] if self._adds_eos and token != _NONE]
        separators = [sep] if api.llama_vocab_get_add_sep(vocab) and sep != _NONE else []
        return [] if self._bos is None else [self._bos], [*ends, *separators], ends

    def _read_texts(self) -> None:
        """Set the attributes that tell how texts are cut, and which ones llama.cpp cannot tokenise."""
        api, vocab = self.library.api, self.handle
        attributes = self.library.short.llama_vocab_get_attr
        data = [api.llama_vocab_get_text(vocab, token) for token in range(self.n_vocab)]
        raw = [text.decode("utf-8", "replace") for text in data]
        hidden = api.LLAMA_TOKEN_ATTR_CONTROL | api.LLAMA_TOKEN_ATTR_UNKNOWN
        controls = [text for token, text in enumerate(raw) if attributes(vocab, token) & hidden]
        users = [text for token, text in enumerate(raw) if attributes(vocab, token) & api.LLAMA_TOKEN_ATTR_USER_DEFINED]
        kind = api.llama_vocab_type(vocab)
        is_spm, is_bpe = kind == api.LLAMA_VOCAB_TYPE_SPM, kind == api.LLAMA_VOCAB_TYPE_BPE
        self._letters = frozenset(text for text in raw if len(text) == 1)
        self._missing_bytes = frozenset[int]()
        self._break, self._num_break_tokens = "", 0
        if is_spm:
            texts = set(data)
            self._missing_bytes = frozenset(
                byte for byte in range(256) if not texts & {b"<0x%02X>" % byte, bytes([byte])}
            )
            used = set("".join(text for text in raw if len(text) > 1)).union(*controls, *users)
            breaks = [one for one in _BREAKS if one not in used and self._unwritable(one) is None]
            self._break = breaks[0] if breaks and self.has_blank else ""
            self._num_break_tokens = len(self._call(self._break.encode(), special=False))
        self._cutter = TextCutter(
            [self.piece(token).decode("utf-8", "replace") for token in range(self.n_vocab)],
            controls,
            users,
            cuts_words=is_bpe or bool(self._break),
            cuts_runs=is_bpe,
            cuts_unknown=is_spm,
        )

    def encode(
        self, segments: Sequence[Segment], limits: EncodeLimits = NO_LIMITS, *, add_bos: bool = True
    ) -> list[int]:
        """Return token ids; control tokens are read in `special` segments only. BOS comes first, once, if it is asked
        for and the text does not begin with it."""
        token_ids = self._encode(segments, limits)
        if add_bos and self._bos is not None and token_ids[:1] != [self._bos]:
            token_ids.insert(0, self._bos)
        return token_ids

    def encode_document(self, text: str, limits: EncodeLimits = NO_LIMITS, *, most: int | None = None) -> list[int]:
        before, behind = self._frames
        token_ids = self._encode([Segment(text, special=False)], limits)
        room = len(token_ids) if most is None else max(0, most - len(before) - len(behind))
        return [*before, *token_ids[:room], *behind]

    def encode_forced(self, text: str) -> list[int]:
        """Return token ids of a short text that continues another one, and holds no control token."""
        return self._tokenize(text, special=False, goes_on=True)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids, control tokens by their names."""
        with self._open():
            return b"".join(self._piece(token_id, special=True) for token_id in token_ids).decode("utf-8", "replace")

    def piece(self, token_id: int) -> bytes:
        """Return the token's bytes; b"" for control tokens."""
        assert 0 <= token_id < self.n_vocab, f"token {token_id} lies outside the vocabulary"
        return self._pieces[token_id]

    def token_bytes(self, token_id: int) -> bytes:
        """Return the token's bytes; of control tokens, their names."""
        name = self._control.get(token_id)
        return self._pieces[token_id] if name is None else name.encode()

    def is_control(self, token_id: int) -> bool:
        """Return True for tokens that never reach the text."""
        return token_id in self._control and token_id not in self._shown

    def show(self, texts: Collection[str]) -> None:
        """Let control tokens that answers are written with reach the text, except end tokens; called before the first
        request."""
        hidden, self._shown = self._shown, frozenset(map(self._control_ids.__getitem__, texts)) - self.end_of_generation
        for token_id in hidden | self._shown:
            self._pieces[token_id] = self._piece(token_id, special=token_id in self._shown)

    def text(self, token_id: int) -> str:
        """Return the token as prompts write it, control tokens included."""
        return self._piece(token_id, special=True).decode("utf-8", "replace")

    @property
    def has_blank(self) -> bool:
        """Whether a text can be tokenised at all: SentencePiece puts a blank before most."""
        return self._unwritable(" ") is None

    def _special(self, kind: str, token_id: int, declared: str | None) -> int | None:
        """Return the token that the file means by `kind`, or None. llama.cpp's default for a file that names none, or
        one out of range, is nothing that the model was trained with."""
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
            num_bytes = self.library.short.llama_token_to_piece(self.handle, token_id, buffer, size, 0, special)
            if num_bytes >= 0:
                return buffer.raw[:num_bytes]
            size = -num_bytes

    def close(self) -> None:
        """Wait for native calls under way, and refuse later ones: the model is freed next."""
        with self._calls:
            self._is_closed = True
            self._calls.wait_for(lambda: self._num_calls == 0)

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Keep the model from being freed. Raises OverloadedError if it may be freed already."""
        with self._calls:
            if self._is_closed:
                raise OverloadedError("The model is being unloaded.", retry_after_s=_RETRY_AFTER_S)
            self._num_calls += 1
        try:
            yield
        finally:
            with self._calls:
                self._num_calls -= 1
                self._calls.notify_all()

    def _encode(self, segments: Sequence[Segment], limits: EncodeLimits) -> list[int]:
        """Tokenise piece by piece, so that a long text ends when it is too long, too slow or no longer wanted."""
        max_tokens, check = limits.max_tokens, limits.check
        token_ids: list[int] = []
        num_chars = sum(len(segment.text) for segment in segments)
        ends_s = time.thread_time() + MAX_CPU_S * max(1.0, num_chars / _CHARS)
        for segment in segments:
            for piece, goes_on in self._cutter.pieces(segment.text, special=segment.special):
                if check is not None:
                    check()
                if time.thread_time() > ends_s:
                    raise InvalidRequestError(
                        f"A text of {num_chars} characters takes more than {MAX_CPU_S:.0f} s of processor time to "
                        "tokenise, which only unusual ones do, such as long runs without a word in them; shorten it.",
                        code="text_too_slow",
                    )
                token_ids += self._tokenize(piece, special=segment.special, goes_on=goes_on)
                if max_tokens is not None and len(token_ids) > max_tokens:
                    return token_ids
        return token_ids

    def _tokenize(self, text: str, *, special: bool, goes_on: bool) -> list[int]:
        """Return the tokens of one piece. Text that makes llama.cpp abort is refused or removed before."""
        plain = self._cutter.without_tokens(text, special=special) if self._missing_bytes else ""
        if (character := self._unwritable(plain)) is not None:
            raise InvalidRequestError(
                f"This model's vocabulary cannot write the character {character!r}, and has no token for what it does "
                "not know; leave that character out.",
                code="unknown_character",
            )
        if self._collapses_blanks:
            text = _WHITE_SPACE.sub(lambda found: " " if " " in found[0] else found[0], text)
        if goes_on and self._num_break_tokens:
            return self._call((self._break + text).encode(), special=special)[self._num_break_tokens :]
        return self._call(text.encode(), special=special)

    def _unwritable(self, text: str) -> str | None:
        """Return a character without a token and without all byte tokens, on which llama.cpp aborts; or None."""
        for character in set(text):
            written = _BLANK if character == " " else character
            if written not in self._letters and not self._missing_bytes.isdisjoint(written.encode()):
                return character
        return None

    def _call(self, data: bytes, *, special: bool, frames: bool = False) -> list[int]:
        """Tokenise `data`; `frames` adds the tokens around a document, such as [CLS]."""
        size = len(data) + 8
        while True:
            tokens = (ctypes.c_int32 * size)()
            with self._open():
                num_tokens = self.library.api.llama_tokenize(
                    self.handle, data, len(data), tokens, size, frames, special
                )
            if num_tokens >= 0:
                # -1 stands for an unknown word in vocabularies that have no token for it.
                return [token for token in tokens[:num_tokens] if token >= 0]
            size = -num_tokens


_CONTROL_MARK = b"\xff"
"""First byte of control tokens for llguidance (its docs/special_tokens.md); no text has it."""


def grammar_vocabulary(vocabulary: Vocabulary) -> GrammarVocabulary:
    """Return the vocabulary as llguidance needs it. A token is a control token here if, and only if, it does not reach
    the text, so that a grammar describes the text that the caller sees; each end token ends a match."""
    token_ids = range(vocabulary.n_vocab)
    return GrammarVocabulary(
        tokens=tuple(
            _CONTROL_MARK + vocabulary.text(token_id).encode()
            if vocabulary.is_control(token_id)
            else vocabulary.piece(token_id)
            for token_id in token_ids
        ),
        control_ids=tuple(token_id for token_id in token_ids if vocabulary.is_control(token_id)),
        end_ids=tuple(sorted(vocabulary.end_of_generation)),
    )


def grammar_tokenizer(vocabulary: Vocabulary, data: GrammarVocabulary) -> LLTokenizer:
    """Return llguidance's tokenizer (some 0.4 s for 49,000 tokens). Forced text is cut by llama.cpp's own tokenizer, as
    the model was trained."""
    return tokenizer_of(data, _ForcedText(vocabulary, data))


class _ForcedText(LongestMatch):
    """Forced text cut into llama.cpp's tokens, if their bytes are those of the text; else by the longest match."""

    def __init__(self, vocabulary: Vocabulary, data: GrammarVocabulary) -> None:
        super().__init__(data)
        self._vocabulary = vocabulary

    def __call__(self, text: str | bytes) -> list[int]:
        data = (text.encode() if isinstance(text, str) else text)[:MAX_FORCED_BYTES]
        with suppress(InvalidRequestError, OverloadedError):  # an unknown character; the model is being unloaded
            token_ids = self._vocabulary.encode_forced(data.decode("utf-8", "ignore"))
            if token_ids and data.startswith(b"".join(self.tokens[token_id] for token_id in token_ids)):
                return token_ids
        return super().__call__(data)
