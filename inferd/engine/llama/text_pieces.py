"""Cutting of a long text into pieces, each short enough for one native call, with the tokens of the whole text.

llama.cpp's regular expressions take 323 bytes of stack for each character of a run that one expression matches, and its
search for control tokens is quadratic in their number. So a long text is cut before a control token, or where the words
of every pre-tokenizer end and no token of the vocabulary spans the place. A run of thousands of characters without such
a place is cut between two letters that no token joins (base64 and hexadecimal have them), else anywhere; its tokens
beside the cut may then differ from llama.cpp's.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Sequence

from inferd.tokenizer import longest_match

PIECE_CHARS = 4096
"""At most 1.3 MB of stack, and 5 ms of a core for usual vocabularies."""
PIECE_SPECIALS = 256
_LETTERS = "0-9A-Za-zÀ-ÖØ-öø-ÿА-яぁ-ゖァ-ヺ一-龥가-힣"
_PLACES = re.compile(rf"(?<=[^\s▁])(?= \S)|(?<=[{_LETTERS}])(?=[\n。，、！？；：])")
"""Ends of words for every pre-tokenizer: before a single blank, and between a letter and a line feed or CJK mark."""
_BLANK = " "
_WHITE_SPACE = re.compile(r"\s*")
_PARTIAL = "\ufffd"
_PAIRS = re.compile(rf"(?=([\s\S][ \n。，、！？；：{_PARTIAL}]|[0-9A-Za-z]{{2}}))")
_IN_WORD = re.compile("(?<=[A-Za-z]{2})(?=[0-9A-Za-z])|(?<=[A-Za-z][0-9])(?=[A-Za-z])|(?<=[0-9]{2})(?=[A-Za-z])")
"""Places within a word where a cut changes no token unless one spans it: not beside signs, which may begin a word with
letters, and not between digits."""
NUM_IN_WORD = 1024
"""Characters before the last possible cut that are searched for such a place; base64 has one in some ten."""
DIGITS_OF_WORD = 3
"""Digits of a word in many pre-tokenizers, counted from the first of a number."""


class TextCutter:
    """Cutter of texts for one vocabulary. Any thread may use it.

    Args:
        token_texts: text of every token; invalid UTF-8 in it is U+FFFD.
        control_texts: texts that are tokens in special text only.
        user_texts: texts that are tokens in any text.
        cuts_words: cut between words; else only at the tokens above.
        cuts_runs: also cut within words, if there is no other place.
        cuts_unknown: tokens are of whole characters; also cut before characters that no longer token has.
    """

    def __init__(
        self,
        token_texts: Sequence[str],
        control_texts: Iterable[str],
        user_texts: Iterable[str],
        *,
        cuts_words: bool,
        cuts_runs: bool = False,
        cuts_unknown: bool = False,
    ) -> None:
        users = list(user_texts)
        self._in_special = _pattern([*control_texts, *users])
        self._in_plain = _pattern(users)
        self._joined = frozenset(_PAIRS.findall("\0".join(token_texts)) if cuts_words else ())
        self._cuts_words = cuts_words
        self._cuts_runs = cuts_runs
        self._has_whole_characters = cuts_unknown
        self._places = _PLACES
        if cuts_unknown and cuts_words:
            known = sorted(set("".join(text for text in token_texts if len(text) > 1)) | {_BLANK})
            self._places = re.compile(rf"{_PLACES.pattern}|(?=[^{''.join(map(re.escape, known))}])")

    def pieces(self, text: str, *, special: bool) -> Iterator[tuple[str, bool]]:
        """Yield each piece, and whether it continues the words before it: no control token stands between them."""
        if len(text) <= PIECE_SPECIALS:
            yield text, False
            return
        start = raw = num_specials = 0  # of the piece, of the text behind its last special token
        special_start = 0  # of the last special token
        goes_on = False
        for first, last in self._specials(text, special=special):
            while first - start > PIECE_CHARS:
                place = self._place(text, max(start, raw), start + PIECE_CHARS, first)
                is_at_special = place is None and special_start > start
                cut = special_start if is_at_special else place
                if cut is None:
                    cut = self._emergency_place(text, max(start, raw), start + PIECE_CHARS, first)
                if cut is None:
                    break
                yield text[start:cut], goes_on
                start, num_specials, goes_on = cut, int(is_at_special), not is_at_special
            if first > start and (num_specials == PIECE_SPECIALS or last - start > PIECE_CHARS):
                yield text[start:first], goes_on
                start, num_specials, goes_on = first, 0, False
            num_specials += 1
            special_start, raw = first, _after_space(text, last)
        if start < len(text):
            yield text[start:], goes_on

    def without_tokens(self, text: str, *, special: bool) -> str:
        """Return the text without its control and user tokens."""
        pattern = self._in_special if special else self._in_plain
        return text if pattern is None else pattern.sub("", text)

    def _specials(self, text: str, *, special: bool) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of each control or user token, then the end of the text."""
        pattern = self._in_special if special else self._in_plain
        if pattern is not None:
            for match in pattern.finditer(text):
                yield match.span()
        yield len(text), len(text)

    def _place(self, text: str, low: int, high: int, end: int) -> int | None:
        """Return the last place between words in (low, high], if there is one."""
        if not self._cuts_words:
            return None
        places = [match.start() for match in self._places.finditer(text, low + 1, min(high + 2, end))]
        return next((place for place in reversed(places) if place <= high and self._is_apart(text, place)), None)

    def _emergency_place(self, text: str, low: int, high: int, end: int) -> int | None:
        """Return a place within a word, at `high` or where fewer tokens change; or the first place between words in
        (high, end), if there is one."""
        if not self._cuts_words:
            return None
        if not self._cuts_runs:
            later = (match.start() for match in self._places.finditer(text, max(low, high) + 1, end))
            return next((place for place in later if self._is_apart(text, place)), None)
        run = text[low:high]
        if text[high] in string.digits:
            cut = high - (len(run) - len(run.rstrip(string.digits))) % DIGITS_OF_WORD
            if cut > low and text[cut - 1] in string.digits:
                return cut
        places = [match.start() for match in _IN_WORD.finditer(text, max(low, high - NUM_IN_WORD), high)]
        joined = self._joined
        return next((place for place in reversed(places) if text[place - 1 : place + 1] not in joined), high)

    def _is_apart(self, text: str, place: int) -> bool:
        """Return whether no token spans the place, not even with a part of the characters beside it."""
        before, after = text[place - 1], text[place]
        befores = [before] if self._has_whole_characters or before.isascii() else [before, _PARTIAL]
        afters = [after] if self._has_whole_characters or after.isascii() else [after, _PARTIAL]
        return not any(one + other in self._joined for one in befores for other in afters)


def _after_space(text: str, start: int) -> int:
    """Return the end of the white space from `start` on, which some control tokens include."""
    found = _WHITE_SPACE.match(text, start)
    return found.end() if found else start


def _pattern(texts: list[str]) -> re.Pattern[str] | None:
    known = sorted({text for text in texts if text})
    return re.compile(longest_match(known)) if known else None
