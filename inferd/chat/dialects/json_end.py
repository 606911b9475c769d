"""Where a JSON object or array ends, found while it comes."""

from __future__ import annotations


class JsonEnd:
    """Counts brackets outside of strings. It does not judge the JSON in between: that is the constraint's work, or the
    reader's."""

    def __init__(self, depth: int = 0) -> None:
        """`depth`: how many brackets are open already."""
        self._depth = depth
        self._in_string = False
        self._escaped = False
        self.is_complete = False

    def feed(self, text: str) -> int:
        """How many characters of `text` belong to the value; sets `is_complete` at its last one."""
        assert not self.is_complete, "nothing follows a complete value"
        for position, character in enumerate(text):
            if self._in_string:
                self._read_in_string(character)
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self.is_complete = True
                    return position + 1
        return len(text)

    def _read_in_string(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = False
