"""Jinja's filters and tests, with the work of each counted in the running budget."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jinja2.filters import make_attrgetter
from jinja2.sandbox import SandboxedEnvironment
from jinja2.utils import _PassArg, pass_environment

from inferd.chat.sandbox.budget import Budget, BudgetError, running_budget
from inferd.chat.sandbox.string_costs import check_width, percent_size, replaced_size

MAX_DIGITS = 300
"""Digits that `round` may round to."""

_LIST_BYTES = 64
_MAX_GROWTH = 10
"""Characters that repr() or HTML escapes write for one."""
_CHEAP_FILTERS = frozenset({"attr", "count", "d", "default", "first", "last", "length"})
_LAZY_FILTERS = frozenset({"map", "reject", "rejectattr", "select", "selectattr"})
_LISTING_FILTERS = frozenset({"items", "list", "reverse"})
_SORTING_FILTERS = frozenset({"batch", "dictsort", "groupby", "max", "min", "slice", "sort", "unique"})
"""Filters that pass a collection more than once, or whose copy of it is larger than its items."""
_TEXT_FILTERS = frozenset(
    {"abs", "capitalize", "center", "e", "escape", "float", "forceescape", "format", "indent", "int", "lower"}
    | {"round", "safe", "string", "title", "trim", "truncate", "upper", "wordcount"}
)
_DEEP_TESTS = frozenset(
    {"!=", "<", "<=", "==", ">", ">=", "eq", "equalto", "ge", "greaterthan", "gt", "in", "le", "lessthan"}
    | {"divisibleby", "lower", "lt", "ne", "upper"}
)


def bounded_filters(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filters that a template may use, each with its work counted."""
    known = _CHEAP_FILTERS | _LAZY_FILTERS | _LISTING_FILTERS | _SORTING_FILTERS | _TEXT_FILTERS
    bounded = {name: _bounded_filter(name, filters[name]) for name in known}
    return bounded | {"join": _join, "replace": _replace, "sum": _sum}


def bounded_tests(tests: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tests whose work grows with their values, with that work counted."""
    return {name: _bounded_test(tests[name]) for name in _DEEP_TESTS}


@pass_environment
def _join(environment: SandboxedEnvironment, value: Any, d: Any = "", attribute: Any = None) -> str:  # noqa: ANN401
    budget = running_budget()
    items = budget.count(value)
    if attribute is not None:
        items = map(make_attrgetter(environment, attribute), items)
    texts, between = [budget.written(item) for item in items], budget.written(d)
    budget.allow(sum(map(len, texts)) + len(between) * len(texts))
    return budget.made(between.join(texts))


def _replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:  # noqa: ANN401 - any value
    budget = running_budget()
    text, old, new = budget.written(value), budget.written(old), budget.written(new)
    budget.allow(len(text))
    budget.allow(replaced_size(text, old, new))
    return budget.made(text.replace(old, new, -1 if count is None else count))


@pass_environment
def _sum(environment: SandboxedEnvironment, value: Any, attribute: Any = None, start: Any = 0) -> Any:  # noqa: ANN401
    """Return the sum of numbers, and of nothing else: adding lists takes quadratic time."""
    budget = running_budget()
    items = budget.count(value)
    if attribute is not None:
        items = map(make_attrgetter(environment, attribute), items)
    for item in items:
        if not isinstance(item, int | float) or not isinstance(start, int | float):
            raise BudgetError("'sum' adds numbers only")
        start = budget.made(start + item)
    return start


def _bounded_test(test: Any) -> Callable[..., Any]:  # noqa: ANN401 - Jinja's own
    @functools.wraps(test)
    def bounded(*values: Any) -> Any:  # noqa: ANN401 - any value
        for value in values:
            running_budget().weigh(value)
        return test(*values)

    return bounded


def _bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    num_passed = 0 if _PassArg.from_obj(function) is None else 1  # a context comes first

    @functools.wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - any value
        budget = running_budget()
        budget.spend(1 + len(args))
        subject, *options = args[num_passed:]
        if name in _LAZY_FILTERS:
            args = (*args[:num_passed], budget.count(subject), *options)
        elif name in _LISTING_FILTERS:
            budget.listed(subject)
        elif name not in _CHEAP_FILTERS:
            _allow_filter(budget, name, subject, [*options, *kwargs.values()])
        result = function(*args, **kwargs)
        return budget.count(result) if isinstance(result, Iterator) else budget.made(result)

    return bounded


def _allow_filter(budget: Budget, name: str, subject: Any, options: list[Any]) -> None:  # noqa: ANN401 - any value
    """Count the work of a filter before it is called. Raises BudgetError."""
    weights = [budget.weigh(value) for value in (subject, *options)]
    widths = [check_width(value) for value in options if name != "format"]
    if name == "round" and any(isinstance(value, int) and abs(value) > MAX_DIGITS for value in options):
        raise BudgetError(f"'round' takes at most {MAX_DIGITS} digits")
    if name in _SORTING_FILTERS:
        budget.listed(subject)
        budget.spend(weights[0])
        budget.allow(weights[0])
        budget.take(weights[0] + _LIST_BYTES * sum(widths))
        return
    size = weights[0] * (1 if isinstance(subject, str) and name not in ("e", "escape", "forceescape") else _MAX_GROWTH)
    if name == "format":
        size = percent_size(budget, budget.written(subject), options)
    elif name == "indent":
        text = budget.written(subject)
        size = weights[0] + (1 + len(text.splitlines())) * (4 + sum(widths) + sum(weights[1:]))
    budget.allow(size + sum(widths))
