"""Budget of one rendering of a chat template: steps, processor time and bytes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import jinja2
from jinja2.utils import Namespace

MAX_STEPS = 100_000_000
"""A step is a visited node of the template, an item that a filter passes, or 64 characters that an operation reads. The
largest known template takes 30 million steps for a conversation of 16,384 messages."""
MAX_CPU_S = 5.0
"""Processor time of the rendering thread."""
MAX_BYTES = 256 * 2**20
"""Bytes of all strings and lists that a rendering makes, kept or not: 32 copies of the largest body."""
MAX_ITEMS = 8_000_000
"""Items of one value, all levels together."""
MAX_DEPTH = 200
"""Levels of one value; comparing or hashing a value in C overflows the stack far above."""
MAX_INT_BITS = 256

_STEPS_PER_CLOCK_CHECK = 50_000
"""A few milliseconds."""
_BYTES_PER_CHARACTER = 4
"""Upper bound for a string in memory, assumed before the string is made."""
_MAX_REPR_GROWTH = 10
"""Characters that repr() writes for one (`\\U0010ffff`)."""
_STEP_CHARACTERS = 64
_ITEM_BYTES = 8
_CHARACTER_BYTES = 80
"""Memory of a string of one character."""
_OBJECT_CHARACTERS = 80
"""Characters of a number, or of an object that is written by its name."""
_thread = threading.local()
_T = TypeVar("_T")
_SCALARS = frozenset({bool, int, float, type(None)})


class BudgetError(jinja2.TemplateError):
    """A rendering is beyond its budget."""


class Size(NamedTuple):
    """Size of a value: characters of its strings, items of its collections, levels of nesting."""

    characters: int
    items: int
    depth: int


class Budget:
    """Budget of one rendering, or of compiling one template; the running budget of its thread while it is entered."""

    def __init__(self, *, call_steps: int = 1) -> None:
        """`call_steps`: steps of a macro's call, whose length is unknown and bounded by the template's."""
        self.call_steps = call_steps
        self._steps_left = MAX_STEPS
        self._bytes_left = MAX_BYTES
        self._next_clock_check = MAX_STEPS
        self._deadline_s = 0.0
        self._outer: Budget | None = None

    def __enter__(self) -> Self:
        self._deadline_s = time.thread_time() + MAX_CPU_S
        self._outer = getattr(_thread, "budget", None)
        _thread.budget = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _thread.budget = self._outer

    def spend(self, steps: int) -> None:
        """Count steps. Raises BudgetError."""
        self._steps_left -= steps
        if self._steps_left <= self._next_clock_check:
            if self._steps_left < 0 or time.thread_time() > self._deadline_s:
                raise BudgetError("the template takes too many steps or too long")
            self._next_clock_check = self._steps_left - _STEPS_PER_CLOCK_CHECK

    def allow(self, num_characters: int) -> None:
        """Count the steps of making a string of `num_characters`, and raise BudgetError if its bytes exceed the rest of
        the budget. The bytes themselves are counted by `made`."""
        self.spend(1 + num_characters // _STEP_CHARACTERS)
        if num_characters * _BYTES_PER_CHARACTER > self._bytes_left:
            raise BudgetError("the template makes too much text or too many lists")

    def made(self, value: _T) -> _T:
        """Return `value` after counting its own bytes if it is a string or a collection. Raises BudgetError."""
        if isinstance(value, str | list | tuple | dict):
            self.take(sys.getsizeof(value))
        elif isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
            raise BudgetError(f"the template makes a number of more than {MAX_INT_BITS} bits")
        return value

    def take(self, num_bytes: int) -> None:
        """Count bytes. Raises BudgetError."""
        self._bytes_left -= num_bytes
        if self._bytes_left < 0:
            raise BudgetError("the template makes too much text or too many lists")

    def count(self, items: Iterable[Any], steps: int = 1) -> Iterator[Any]:
        """Yield the items; each counts `steps` and its bytes in a list. Raises BudgetError."""
        num_bytes = _CHARACTER_BYTES if isinstance(items, str) else _ITEM_BYTES
        for item in items:
            self.spend(steps)
            self.take(num_bytes)
            yield item

    def listed(self, value: Any) -> None:  # noqa: ANN401 - any value
        """Count a copy of a collection as a list. Raises BudgetError."""
        if hasattr(value, "__len__"):
            self.spend(1 + len(value))
            self.take(len(value) * (_CHARACTER_BYTES if isinstance(value, str) else _ITEM_BYTES))

    def weigh(self, value: Any) -> int:  # noqa: ANN401 - any value
        """Count a value as `measure` does, and return about the number of its characters. Raises BudgetError."""
        if isinstance(value, str):
            self.spend(1 + len(value) // _STEP_CHARACTERS)
            return len(value)
        size = self.measure(value)
        return size.characters + 4 * size.items

    def measure(self, value: Any) -> Size:  # noqa: ANN401 - any value
        """Count the contents of a value, each as often as it occurs. Raises BudgetError.

        A list that holds another list twice, and so on, is small in memory and endless when it is written, compared or
        hashed.
        """
        num_items = num_characters = depth = 0
        level = [value]
        while level:
            depth += 1
            below: list[Any] = []
            for item in level:
                if isinstance(item, str):
                    num_characters += len(item)
                    continue
                held = _held(item)
                if held is None:
                    num_characters += _OBJECT_CHARACTERS
                    continue
                num_items += len(held)
                self.spend(1 + len(held))
                if num_items > MAX_ITEMS or depth > MAX_DEPTH:
                    raise BudgetError("the template makes too much text or too many lists")
                below += held
            level = below
        self.spend(1 + num_characters // _STEP_CHARACTERS)
        return Size(num_characters, num_items, depth)

    def written(self, value: Any) -> str:  # noqa: ANN401 - any value
        """Return `str(value)`, counted before it is made. Raises BudgetError."""
        if not isinstance(value, str):
            self.allow(_MAX_REPR_GROWTH * self.weigh(value))
            value = str(value)
            self.take(sys.getsizeof(value))
        assert isinstance(value, str), "str() made it"
        return value

    def joined(self, pieces: Iterable[str]) -> str:
        """Return the pieces as one string, counted before it is made. Raises BudgetError."""
        pieces = pieces if isinstance(pieces, list) else list(pieces)
        self.allow(sum(map(len, pieces)))
        text = "".join(pieces)
        self.take(sys.getsizeof(text))
        return text


def running_budget() -> Budget:
    """Return the budget of the rendering in this thread."""
    budget: Budget = _thread.budget
    return budget


def _held(item: object) -> list[Any] | range | tuple[Any, ...] | None:
    """Return the items of a collection; None for any other value."""
    if type(item) in _SCALARS:
        return None
    if isinstance(item, list | tuple | range):
        return item
    if isinstance(item, dict):
        return [*item, *item.values()]
    if isinstance(item, KeysView | ValuesView | ItemsView):
        return list(item)
    if isinstance(item, Namespace):
        return list(item._Namespace__attrs.values())  # its repr() writes them
    return None
