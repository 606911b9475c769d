"""Pairs: a query and a document as the tokens that a reranker scores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from inferd.errors import ConfigError, ContextLengthError
from inferd.tokenizer import Check, EncodeLimits, Segment, Tokenizer, longest_match

QUERY, DOCUMENT = "{query}", "{document}"
"""Places of the two texts in a rerank template (`tokenizer.chat_template.rerank` of a GGUF)."""

Piece = tuple[int, ...] | str
"""Token ids as they are, or text with places for query and document."""


class PairFormat:
    """Format of the pairs of one model.

    Args:
        pieces: QUERY and DOCUMENT are once in them, the query first.
    """

    def __init__(self, pieces: Sequence[Piece], tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        texts = [index for index, piece in enumerate(pieces) if isinstance(piece, str) and DOCUMENT in piece]
        assert len(texts) == 1, "one piece has the document"
        (self._before, self._behind) = pieces[: texts[0]], pieces[texts[0] + 1 :]
        text = pieces[texts[0]]
        assert isinstance(text, str), "the document is in a text"
        self._prefix, _, self._suffix = text.partition(DOCUMENT)

    @classmethod
    def framed(cls, frames: tuple[Sequence[int], Sequence[int], Sequence[int]], tokenizer: Tokenizer) -> PairFormat:
        """Return the format of a model without a template: the vocabulary's own tokens before, between and after."""
        before, between, after = (tuple(frame) for frame in frames)
        return cls((before, QUERY, between, DOCUMENT, after), tokenizer)

    @classmethod
    def of_template(cls, template: str, tokenizer: Tokenizer) -> PairFormat:
        """Return the format of a rerank template. Control tokens are read in the template, never in query or document.
        Text between control tokens is one piece, because tokens merge across the borders of query and document.

        Raises:
            ConfigError: the template does not have each place once, the query first.
        """
        if (
            template.count(QUERY) != 1
            or template.count(DOCUMENT) != 1
            or template.index(QUERY) > template.index(DOCUMENT)
        ):
            raise ConfigError(f"tokenizer.chat_template.rerank must have {QUERY} and, behind it, {DOCUMENT}, each once")
        controls = sorted(set(tokenizer.control_texts))
        parts = re.split(f"({longest_match(controls)})", template) if controls else [template]
        pieces: list[Piece] = []
        for index, part in enumerate(parts):
            if index % 2:
                pieces.append(tuple(tokenizer.encode([Segment(part, special=True)], add_bos=False)))
            elif part:
                pieces.append(part)
        return cls(pieces, tokenizer)

    def of_query(self, query: str, max_tokens: int, check: Check | None = None) -> QueryPairs:
        """Return the pairs of one query.

        Args:
            max_tokens: maximum tokens of a pair.
            check: called before each piece of the text is tokenised; raises to stop.

        Raises:
            ContextLengthError: the query leaves no room for a token of a document.
            InvalidRequestError: as `Tokenizer.encode`.
        """
        limits = EncodeLimits(max_tokens, check)
        prefix = self._prefix.replace(QUERY, query)
        head = self._tokens(
            [piece.replace(QUERY, query) if isinstance(piece, str) else piece for piece in self._before], limits
        )
        pairs = QueryPairs(
            self._tokenizer,
            limits,
            head=head,
            prefix=prefix,
            suffix=self._suffix,
            num_prefix=len(self._tokens([prefix], limits)),
            suffix_tokens=self._tokens([self._suffix], limits),
            tail=self._tokens(self._behind, limits),
        )
        if pairs.num_document < 1:
            raise ContextLengthError(
                f"This model's maximum input length is {max_tokens} tokens, for the query and one document together. "
                f"However, your query alone resulted in at least {max_tokens - pairs.num_document} tokens. Please "
                "shorten it.",
                param="query",
            )
        return pairs

    def _tokens(self, pieces: Sequence[Piece], limits: EncodeLimits) -> tuple[int, ...]:
        found: list[int] = []
        for piece in pieces:
            found += _encoded(self._tokenizer, piece, limits) if isinstance(piece, str) else piece
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Pair of a query and a document.

    Attributes:
        is_cut: whether only the beginning of the document is in it.
    """

    token_ids: tuple[int, ...]
    is_cut: bool


@dataclass(frozen=True, slots=True)
class QueryPairs:
    """Pairs of one query with any document.

    Attributes:
        head, tail: tokens before and after the text that has the document.
        prefix, suffix: text before and after the document, which is tokenised with it.
        num_prefix: tokens of `prefix` alone.
        suffix_tokens: tokens of `suffix` alone.
    """

    tokenizer: Tokenizer
    limits: EncodeLimits
    head: tuple[int, ...]
    prefix: str
    suffix: str
    num_prefix: int
    suffix_tokens: tuple[int, ...]
    tail: tuple[int, ...]

    @property
    def num_document(self) -> int:
        """Tokens that a document may have, below 1 if there is no room for it."""
        assert self.limits.max_tokens is not None, "the tokens of a pair are limited"
        others = len(self.head) + self.num_prefix + len(self.suffix_tokens) + len(self.tail)
        return self.limits.max_tokens - others

    def pair(self, document: str, max_tokens: int | None = None) -> Pair:
        """Return the pair with `document`, whose end is cut off if it is too long.

        Args:
            max_tokens: tokens of the document to keep; None: as many as there is room for.

        Raises:
            InvalidRequestError: as `Tokenizer.encode`.
        """
        num_kept = self.num_document if max_tokens is None else min(max_tokens, self.num_document)
        most = self.num_prefix + num_kept
        body = _encoded(
            self.tokenizer,
            self.prefix + document + self.suffix,
            replace(self.limits, max_tokens=most + len(self.suffix_tokens)),
        )
        is_cut = len(body) > most + len(self.suffix_tokens)
        if is_cut:
            body = [*body[:most], *self.suffix_tokens]
        return Pair(token_ids=(*self.head, *body, *self.tail), is_cut=is_cut)


def _encoded(tokenizer: Tokenizer, text: str, limits: EncodeLimits) -> list[int]:
    return tokenizer.encode([Segment(text, special=False)], limits, add_bos=False) if text else []
