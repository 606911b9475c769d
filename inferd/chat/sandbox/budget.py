"""Budget of one rendering of a chat template: steps, processor time, bytes of the values that it makes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from types import TracebackType
from typing import Any, NamedTuple, Self

import jinja2
from jinja2.utils import Namespace

MAX_STEPS = 100_000_000
"""Nodes of the template that are visited, items that a filter goes through, 64 characters that an operation reads. A
conversation of 16,384 messages takes the largest known template 30 million."""
MAX_CPU_S = 5.0
"""Of the rendering thread."""
MAX_BYTES = 256 * 2**20
"""Of all strings and lists that a rendering makes, whether it keeps them or not: 32 copies of the largest body."""
MAX_ITEMS = 8_000_000
"""Of one value, all levels together."""
MAX_DEPTH = 200
"""Levels of one value: far fewer than comparing or hashing it in C would survive."""
MAX_INT_BITS = 256

_LOOK_EVERY = 50_000
"""Steps between two looks at the clock: a few milliseconds."""
_BYTES_PER_CHARACTER = 4
"""At most, in memory; an estimate before a string is made assumes them."""
_REPR_GROWTH = 10
"""Characters that repr() writes for one, at most (`\\U0010ffff`)."""
_STEP_CHARACTERS = 64
_ITEM_BYTES = 8
_CHARACTER_BYTES = 80
"""Of a string of one character."""
_OBJECT_CHARACTERS = 80
"""Of a number, or of an object that is written by its name."""
_SCALARS = frozenset({bool, int, float, type(None)})


class BudgetError(jinja2.TemplateError):
    """A template goes beyond the budget of its rendering."""


class Size(NamedTuple):
    """Of a value: the characters of its strings, the items of its collections, how deep they are nested."""

    characters: int
    items: int
    depth: int


class Budget:
    """The budget of one rendering, or of compiling one template. It is the thread's own while it is entered."""

    def __init__(self, *, call_steps: int = 1) -> None:
        """`call_steps`: what a call of a macro costs, which runs a part of the template that is not known."""
        self.call_steps = call_steps
        self._steps_left = MAX_STEPS
        self._bytes_left = MAX_BYTES
        self._next_look = MAX_STEPS
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
        """Counts steps. Raises BudgetError."""
        self._steps_left -= steps
        if self._steps_left <= self._next_look:
            if self._steps_left < 0 or time.thread_time() > self._deadline_s:
                raise BudgetError("it works without end")
            self._next_look = self._steps_left - _LOOK_EVERY

    def allow(self, num_characters: int) -> None:
        """Raises BudgetError if a string of so many characters would go beyond what is left; counts the steps of making
        it and no bytes."""
        self.spend(1 + num_characters // _STEP_CHARACTERS)
        if num_characters * _BYTES_PER_CHARACTER > self._bytes_left:
            raise BudgetError("it makes text or lists without end")

    def made(self, value: Any) -> Any:  # noqa: ANN401 - any value
        """`value`, its own bytes counted if it is a string or a collection. Raises BudgetError."""
        if isinstance(value, str | list | tuple | dict):
            self.take(sys.getsizeof(value))
        elif isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
            raise BudgetError("it makes a number without end")
        return value

    def take(self, num_bytes: int) -> None:
        """Counts bytes. Raises BudgetError."""
        self._bytes_left -= num_bytes
        if self._bytes_left < 0:
            raise BudgetError("it makes text or lists without end")

    def count(self, items: Iterable[Any], steps: int = 1) -> Iterator[Any]:
        """The items; each costs `steps`, and the bytes that it takes in a list."""
        num_bytes = _CHARACTER_BYTES if isinstance(items, str) else _ITEM_BYTES
        for item in items:
            self.spend(steps)
            self.take(num_bytes)
            yield item

    def listed(self, value: Any) -> None:  # noqa: ANN401 - any value
        """Counts a copy of a collection as a list. Raises BudgetError."""
        if hasattr(value, "__len__"):
            self.spend(1 + len(value))
            self.take(len(value) * (_CHARACTER_BYTES if isinstance(value, str) else _ITEM_BYTES))

    def weigh(self, value: Any) -> int:  # noqa: ANN401 - any value
        """Count all that a value holds, as `measure`, and return about the characters that it is written with."""
        if isinstance(value, str):
            self.spend(1 + len(value) // _STEP_CHARACTERS)
            return len(value)
        size = self.measure(value)
        return size.characters + 4 * size.items

    def measure(self, value: Any) -> Size:  # noqa: ANN401 - any value
        """Count all that a value holds, as often as it holds it.

        A list that holds another one twice, and that in turn, is small in memory and endless when it is written,
        compared or hashed. Raises BudgetError.
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
                    raise BudgetError("it makes text or lists without end")
                below += held
            level = below
        self.spend(1 + num_characters // _STEP_CHARACTERS)
        return Size(num_characters, num_items, depth)

    def written(self, value: Any) -> str:  # noqa: ANN401 - any value
        """`str(value)`, counted. Raises BudgetError."""
        if not isinstance(value, str):
            self.allow(_REPR_GROWTH * self.weigh(value))
            value = str(value)
            self.take(sys.getsizeof(value))
        text: str = value
        return text

    def joined(self, pieces: Iterable[str]) -> str:
        """The pieces as one string, counted before it is made. Raises BudgetError."""
        pieces = pieces if isinstance(pieces, list) else list(pieces)
        self.allow(sum(map(len, pieces)))
        text = "".join(pieces)
        self.take(sys.getsizeof(text))
        return text


def running_budget() -> Budget:
    """That of the rendering in this thread."""
    budget: Budget = _thread.budget
    return budget


def _held(item: object) -> list[Any] | range | tuple[Any, ...] | None:
    """Items of a collection; None for anything else."""
    if type(item) in _SCALARS:
        return None
    if isinstance(item, list | tuple | range):
        return item
    if isinstance(item, dict):
        return [*item, *item.values()]
    if isinstance(item, KeysView | ValuesView | ItemsView):
        return list(item)
    if isinstance(item, Namespace):
        return list(item._Namespace__attrs.values())  # what its repr() writes
    return None


_thread = threading.local()
