"""Literal spans: pieces of user text that could be read as a control token, marked through a template's rendering.

The rule: a user's `<|im_start|>` stays the characters that it is, while the template's own `<|im_start|>` is the
control token. After rendering, one string holds both, so the user's must be marked before.

Each message as a segment of its own would be simpler, but the tokenizer merges across the seam: the template's "\n" and
a message's first "\n" may be one token, and models are trained on the tokens of the whole rendered prompt. So only the
dangerous pieces are marked, which ordinary text does not contain, and everything else is tokenised as the reference
implementations do it. A template may trim the strings it is given and set them beside each other or beside text of its
own, so these are literal spans, white space at a string's edges not counted:
- every occurrence of a control token's text;
- a beginning of such a text at a string's end, an end of one at a string's start;
- a whole string from the inside of one (`|im_start|` between a template's `<` and `>`).

Each character of a span stands between two sentinels, private-use characters that occur nowhere in the input. One pair
around the whole span would not do: a template could cut both sentinels off and leave text of the span unmarked
(`content[2:-2]`), and splitting at a control text such as `</think>` would tear the span apart. With marked characters
the template does not recognise the text. The limit: a template that changes characters inside a string, such as by
`lower` or `replace`, is not detected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice

from inferd.errors import InvalidRequestError
from inferd.tokenizer import Segment, longest_match

_PRIVATE_USE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


class ControlTexts:
    """Control tokens of one vocabulary; finds the literal spans of a string."""

    def __init__(self, texts: Iterable[str]) -> None:
        known = sorted({text for text in texts if text})
        self._whole = re.compile(longest_match(known)) if known else None
        self._beginnings = frozenset(text[:length] for text in known for length in range(1, len(text)))
        self._ends = frozenset(text[-length:] for text in known for length in range(1, len(text)))
        self._joined = "\0".join(known)
        self._longest = max(map(len, known), default=0)

    def literal_spans(self, text: str) -> list[tuple[int, int]]:
        """Return the literal spans as (start, end), ascending; no two touch."""
        if self._whole is None:
            return []
        found = [match.span() for match in self._whole.finditer(text)]
        stripped = text.strip()
        first = len(text) - len(text.lstrip())
        last = first + len(stripped)
        if 0 < len(stripped) < self._longest and stripped in self._joined:
            return [(first, last)]
        lengths = range(min(self._longest - 1, len(stripped)), 0, -1)
        found += [(last - length, last) for length in lengths if stripped[-length:] in self._beginnings]
        found += [(first, first + length) for length in lengths if stripped[:length] in self._ends]
        return list(_merged(sorted(_without_edge_space(text, span) for span in found)))


class Sentinels:
    """Sentinel characters of one rendering: a pair that marks literal spans in the input and finds them in the output,
    and one that marks the end of the text that the model is to continue.

    Attributes:
        end: character to put after that text.
    """

    def __init__(self, control_texts: ControlTexts, used: set[str]) -> None:
        """Choose three private-use characters outside of `used`, every character of template, tokenizer and input.

        Raises:
            InvalidRequestError: the input uses all of them.
        """
        self._control_texts = control_texts
        free = (chr(point) for point in chain(*_PRIVATE_USE) if chr(point) not in used)
        sentinels = tuple(islice(free, 3))
        if len(sentinels) < 3:
            raise InvalidRequestError(
                "The messages use every private-use character of Unicode: leave three of them out.",
                param="messages",
                code="invalid_value",
            )
        self._open, self._close, self.end = sentinels

    def mark(self, text: str) -> str:
        """Return `text` with each character of a literal span between sentinels."""
        pieces, position = [], 0
        for start, end in self._control_texts.literal_spans(text):
            pieces.append(text[position:start])
            pieces += [f"{self._open}{character}{self._close}" for character in text[start:end]]
            position = end
        return "".join([*pieces, text[position:]])

    def strip(self, text: str) -> str:
        """Return `text` without sentinels."""
        return text.replace(self._open, "").replace(self._close, "").replace(self.end, "")

    def until_end(self, rendered: str) -> str:
        """Return the rendered text before the marked end. Raises InvalidRequestError: the template did not write it."""
        before, end, _ = rendered.rpartition(self.end)
        if not end:
            raise InvalidRequestError(
                "This model's chat template does not write the last message so that the model could continue it: end "
                "with a user's message.",
                param="messages",
                code="unsupported_value",
            )
        return before.replace(self.end, "")

    def segments(self, rendered: str) -> list[Segment]:
        """Return the rendered text without sentinels: literal spans as plain segments, all other text as special ones.

        Neighbouring plain pieces are one segment. Special ones stay apart: a span between them may have been removed.

        Raises:
            InvalidRequestError: the template has separated a marked character from its sentinels.
        """
        # A marked character, its escape by `tojson`, or nothing if it was removed. A possessive repeat needs no stack.
        other = f"[^{self._open}{self._close}]"
        span = rf"((?:{self._open}(?:{other}?|\\{other}{{1,5}}){self._close})++)"
        segments = []
        for number, piece in enumerate(re.split(span, rendered)):
            plain = number % 2 == 1
            if plain:
                piece = self.strip(piece)
            elif self._open in piece or self._close in piece:
                raise InvalidRequestError(
                    "A message holds the text of one of this model's control tokens where the model's chat template "
                    "cuts it; leave that text out, or write it differently.",
                    param="messages",
                    code="invalid_value",
                )
            if piece:
                segments.append(Segment(piece, special=not plain))
        return segments


def mapped_strings(value: object, change: Callable[[str], str]) -> object:
    """Return a copy of plain JSON data with `change` applied to every string, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): mapped_strings(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [mapped_strings(item, change) for item in value]
    return value


def _without_edge_space(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """Return the span without white space at its edges, where a template's trim must still reach it."""
    start, end = span
    piece = text[start:end]
    if not piece.strip():
        return span
    return start + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip()))


def _merged(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join touching and overlapping spans."""
    current: tuple[int, int] | None = None
    for start, end in spans:
        if current is not None and start <= current[1]:
            current = (current[0], max(current[1], end))
        else:
            if current is not None:
                yield current
            current = (start, end)
    if current is not None:
        yield current
