"""Log-probabilities of a prompt: vLLM's `prompt_logprobs`, and OpenAI's legacy lists of a prompt that is echoed.

They are encoded as they come: a long prompt has 100,000s of numbers, and the event loop has other work meanwhile.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence

import msgspec

from inferd.logprobs import PromptLogprob, RankedToken
from inferd.wire.errors import unsupported_value
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.logprobs import TextLogprobs, finite, shown_text
from inferd.wire.openai.request_fields import CompletionFields, check_num_alternatives

TokenBytes = Callable[[int], bytes]
"""Bytes of a token; of control tokens, their names."""


def check_prompt_logprobs(request: CompletionFields, ignored: IgnoredFields) -> None:
    """Raise InvalidRequestError for a number of alternatives out of range, and for vLLM's refusal: not in streams."""
    check_num_alternatives("prompt_logprobs", request.prompt_logprobs)
    if not request.streamed or request.prompt_logprobs is None:
        return
    if request.prompt_logprobs:
        raise unsupported_value(
            "prompt_logprobs", "'prompt_logprobs' is not available in a stream: leave it or 'stream' out."
        )
    ignored.add("prompt_logprobs", "has no effect in a stream")


class PromptToken(msgspec.Struct, frozen=True):
    """Log-probability of a token at its place in a prompt. `rank`: 1 for the most probable one."""

    logprob: float
    rank: int
    decoded_token: str


PromptLogprobs = list[dict[str, PromptToken] | None]
"""null for the first token; then the token and the most probable ones, by their ids."""


class PromptLogprobsWriter:
    """Writer of `prompt_logprobs`.

    Args:
        num_top: alternatives to show for each token.
    """

    def __init__(self, num_top: int, bytes_of: TokenBytes) -> None:
        self._num_top = num_top
        self._bytes_of = bytes_of
        self._parts: list[bytes] = []

    def add(self, tokens: Sequence[PromptLogprob]) -> None:
        """Add the next tokens, at least one."""
        places: PromptLogprobs = [self._place(token) for token in tokens]
        self._parts.append(msgspec.json.encode(places)[1:-1])

    def encoded(self) -> bytes:
        return b"[" + b",".join(self._parts) + b"]"

    def _place(self, token: PromptLogprob) -> dict[str, PromptToken] | None:
        if token.logprob is None:
            return None
        shown = (RankedToken(token.token_id, token.logprob, token.rank), *token.top[: self._num_top])
        return {
            str(one.token_id): PromptToken(
                finite(one.logprob), one.rank, self._bytes_of(one.token_id).decode("utf-8", "replace")
            )
            for one in shown
        }


class EchoLogprobsWriter:
    """Writer of the legacy lists of an echoed prompt.

    Args:
        text: the prompt as it is echoed.
        num_top: alternatives to show for each token.

    Attributes:
        num_characters: of `text`, up to the last token.
    """

    def __init__(self, text: str, num_top: int, bytes_of: TokenBytes) -> None:
        self.num_characters = 0
        self._text = text
        self._num_top = num_top
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def write(self, tokens: Sequence[PromptLogprob]) -> TextLogprobs:
        """Return the lists for the next tokens."""
        return TextLogprobs(
            tokens=[shown_text(self._bytes_of(token.token_id)) for token in tokens],
            token_logprobs=[None if token.logprob is None else finite(token.logprob) for token in tokens],
            top_logprobs=[self._top(token) for token in tokens],
            text_offset=[self._offset(token) for token in tokens],
        )

    def _top(self, token: PromptLogprob) -> dict[str, float] | None:
        """Return log-probabilities by text, the token's own among them."""
        if token.logprob is None:
            return None
        found: dict[str, float] = {}
        for best in token.top[: self._num_top]:
            found.setdefault(shown_text(self._bytes_of(best.token_id)), finite(best.logprob))
        found[shown_text(self._bytes_of(token.token_id))] = finite(token.logprob)
        return found

    def _offset(self, token: PromptLogprob) -> int:
        """Return the token's place in the text; a token that continues a character has the place of that character.

        What the tokenizer put before a text is not in it: BOS, and a blank in some vocabularies.
        """
        offset = self.num_characters
        written = self._decoder.decode(self._bytes_of(token.token_id))
        if self._text.startswith(written, offset):
            self.num_characters += len(written)
        elif offset == 0:
            rest = written.removeprefix(" ")
            self.num_characters += len(rest) if rest != written and self._text.startswith(rest) else 0
        else:
            self.num_characters = min(offset + len(written), len(self._text))
        return offset


class JoinedTextLogprobs:
    """The four lists of a choice, put together from pieces."""

    def __init__(self) -> None:
        self._lists: dict[str, list[bytes]] = {name: [] for name in TextLogprobs.__struct_fields__}

    def add(self, piece: TextLogprobs) -> None:
        """Add the lists of the next tokens, at least one."""
        for name, parts in self._lists.items():
            parts.append(msgspec.json.encode(getattr(piece, name))[1:-1])

    def encoded(self) -> bytes:
        return with_fields(b"{}", {name: b"[" + b",".join(parts) + b"]" for name, parts in self._lists.items()})


def with_fields(data: bytes, fields: Mapping[str, bytes]) -> bytes:
    """Return an encoded object with more fields, whose values are encoded too."""
    first = [] if data == b"{}" else [data[1:-1]]
    return b"{" + b",".join([*first, *(b'"%s":%s' % (name.encode(), value) for name, value in fields.items())]) + b"}"
