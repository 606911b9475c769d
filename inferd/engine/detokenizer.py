"""Detokenizer: bytes of sampled tokens to text, whole characters only, cut at the first stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Detokenizer:
    """Incremental decoder that holds back uncertain text: the bytes of an unfinished character, and the longest suffix
    that could still become a stop string.

    Of several stop strings the one that is complete first counts, so the text does not depend on how tokens cut it.

    Args:
        stop: stop strings, none empty.
        includes_stop: return the stop string that ends the text, too.
    """

    def __init__(self, stop: Sequence[str], *, includes_stop: bool = False) -> None:
        assert all(stop), "stop strings are not empty"
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = tuple(stop)
        self._includes_stop = includes_stop
        self._held = ""
        self.stop_string: str | None = None

    @property
    def stopped(self) -> bool:
        return self.stop_string is not None

    def push(self, piece: bytes, *, may_stop: bool = True) -> str:
        """Return the text that is certain after this piece. When a stop string is complete, and `may_stop`, set
        `stop_string` and return the text before it; the rest is dropped."""
        assert not self.stopped, "no text follows a stop string"
        return self._release(self._held + self._decoder.decode(piece), may_stop=may_stop)

    def flush(self) -> str:
        """Return the text that was held back for stop strings, at the end of generation.

        Bytes of an unfinished character are dropped: a text that the limit cuts inside a character ends before it.
        """
        held, self._held = self._held, ""
        return held

    def _release(self, text: str, *, may_stop: bool) -> str:
        if not self._stop:
            return text
        matches = [(start + len(stop), start, stop) for stop in self._stop if (start := text.find(stop)) >= 0]
        if matches and may_stop:
            self._held = ""
            end, start, self.stop_string = min(matches)
            return text[: end if self._includes_stop else start]
        num_held = max((_partial_match(text, stop) for stop in self._stop), default=0)
        certain = len(text) - num_held
        self._held = text[certain:]
        return text[:certain]


def _partial_match(text: str, stop: str) -> int:
    """Return the length of the longest suffix of `text` that is a prefix of `stop`, but not all of it."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
