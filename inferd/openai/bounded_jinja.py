"""Jinja whose work is bounded: a template may come with a model from anywhere, and one that loops or doubles a string
would take a thread or all memory, request after request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_ITERATIONS = 1_000_000
"""Of all loops of a rendering together: less than a second."""
MAX_CHARACTERS = 64 * 2**20
"""Of a string that a template makes, and of what it renders: eight times the largest body."""
BUDGET = "inferd_budget"
"""The variable under which a rendering gets its Budget."""

_LOOP_FILTER = "inferd_bounded_loop"
_TEXT_FILTER = "inferd_bounded_text"


class Budget:
    """What one rendering may still do."""

    def __init__(self) -> None:
        self._iterations_left = MAX_ITERATIONS

    def count(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._iterations_left -= 1
            if self._iterations_left < 0:
                raise jinja2.TemplateError("it loops without end")
            yield item


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Every loop counts in the rendering's Budget, and no operator makes a string longer than MAX_CHARACTERS."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - Jinja's own
        super().__init__(**options)
        self.filters[_LOOP_FILTER] = _counted
        self.filters[_TEXT_FILTER] = _checked

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            assert isinstance(loop.iter, nodes.Expr), "what is looped over is an expression"
            loop.iter = _filtered(loop.iter, _LOOP_FILTER)
        for concat in list(tree.find_all(nodes.Concat)):
            concat.nodes = [_filtered(nodes.Concat(concat.nodes, lineno=concat.lineno), _TEXT_FILTER)]
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401 - any value
        if operator == "**":
            raise jinja2.TemplateError("powers are not computed in templates")
        if operator == "*":
            sized, times = (left, right) if hasattr(left, "__len__") else (right, left)
            if hasattr(sized, "__len__") and isinstance(times, int) and len(sized) * times > MAX_CHARACTERS:
                raise jinja2.TemplateError("it makes a string without end")
        return _checked(super().call_binop(context, operator, left, right))


def render_bounded(template: jinja2.Template, variables: dict[str, Any]) -> str:
    """Raises what the template does, TemplateError where it goes beyond a bound."""
    pieces, n_characters = [], 0
    for piece in template.generate(variables | {BUDGET: Budget()}):
        n_characters += len(piece)
        if n_characters > MAX_CHARACTERS:
            raise jinja2.TemplateError("it renders text without end")
        pieces.append(piece)
    return "".join(pieces)


@jinja2.pass_context
def _counted(context: Context, items: Any) -> Iterator[Any]:  # noqa: ANN401 - whatever a template loops over
    budget = context.get(BUDGET)
    assert isinstance(budget, Budget), "templates are rendered by render_bounded"
    return budget.count(items)


def _checked(value: Any) -> Any:  # noqa: ANN401 - any value
    if isinstance(value, str | list | tuple) and len(value) > MAX_CHARACTERS:
        raise jinja2.TemplateError("it makes a string without end")
    return value


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
