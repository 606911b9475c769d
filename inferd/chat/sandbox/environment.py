"""Jinja environment whose work is bounded: a template may come with a model from anywhere, and one that loops or
doubles a list would take a thread or all memory, request after request.

Loops, calls, filters, tests, comparisons, operators, slices and the joining of text are all counted in the running
budget (budget.py). A template may use only the filters, functions and methods that are listed here and in filters.py.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer
from markupsafe import Markup

from inferd.chat.sandbox.budget import Budget, BudgetError, running_budget
from inferd.chat.sandbox.filters import bounded_filters, bounded_tests
from inferd.chat.sandbox.string_costs import METHODS, allow_method, format_size, percent_size

MAX_SOURCE_CHARACTERS = 2**20
"""Characters of a template; the longest known one has 30,000."""
MAX_NODES = 20_000
"""Nodes of a template; known ones have up to 4,000. Compiling more takes minutes."""

_OWN_PREFIX = "inferd_"
_CHARACTERS_PER_NODE = 16
_NAMESPACE_BYTES = 512
_INT_BYTES = 32
_METHODS = {
    dict: frozenset({"copy", "get", "items", "keys", "values"}),
    list: frozenset({"copy", "count", "index"}),
    tuple: frozenset({"count", "index"}),
    LoopContext: frozenset({"changed", "cycle"}),
    Cycler: frozenset({"next", "reset"}),
}
"""Methods that a template may call, beside those of strings."""
_CLASSES = frozenset({Cycler, Joiner, Namespace, dict})


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Sandbox in which all work is counted in the thread's running Budget.

    Functions in `globals` may be called, and bound themselves.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - Jinja's own
        super().__init__(finalize=_finalized, **options)
        del self.globals["lipsum"]
        self.filters = bounded_filters(self.filters) | {
            "inferd_loop": lambda items, steps: running_budget().count(items, steps),
            "inferd_concat": lambda values: running_budget().joined([running_budget().written(v) for v in values]),
            "inferd_made": lambda value: running_budget().made(value),
            "inferd_weighed": _weighed,
            "inferd_searched": _searched,
            "inferd_slice": lambda value, start, stop, step: running_budget().made(value[start:stop:step]),
        }
        self.tests |= bounded_tests(self.tests)

    @staticmethod
    def concat(pieces: Any) -> str:  # noqa: ANN401 - Jinja's own
        """Return the output of a macro or block as one string."""
        return running_budget().joined(pieces)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        if sum(1 for _ in tree.find_all(nodes.Node)) > MAX_NODES:
            raise BudgetError(f"the template has more than {MAX_NODES} nodes")
        for used in tree.find_all(nodes.Name):
            if used.name.startswith(_OWN_PREFIX):
                self._fail(f"names must not begin with '{_OWN_PREFIX}'", used.lineno)
        for used_filter in tree.find_all(nodes.Filter):
            if used_filter.name.startswith(_OWN_PREFIX):
                self._fail(f"No filter named '{used_filter.name}'", used_filter.lineno)
        bounded: nodes.Template = _Counting().visit(tree)
        return bounded

    @staticmethod
    def _fail(message: str, line: int) -> None:
        raise jinja2.TemplateSyntaxError(message, line)

    def getitem(self, obj: Any, argument: Any) -> Any:  # noqa: ANN401 - any value
        if isinstance(argument, tuple):
            running_budget().weigh(argument)
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:  # noqa: ANN401 - any value
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        text, formatted = value.__self__, wrapped

        def bounded(*args: Any, **kwargs: Any) -> str:  # noqa: ANN401 - any value
            budget = running_budget()
            budget.allow(format_size(budget, text, (*args, *kwargs.values())))
            return budget.made(formatted(*args, **kwargs))

        return bounded

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805, ANN401 - Jinja's
        budget = running_budget()
        budget.spend(1 + len(args) + len(kwargs))
        if isinstance(__obj, Macro | BlockReference | LoopContext):
            budget.spend(budget.call_steps)
            if isinstance(__obj, LoopContext) and args:
                args = (budget.count(args[0], budget.call_steps), *args[1:])
        elif isinstance(__obj, types.BuiltinMethodType | types.MethodType):
            args = _allowed_method(budget, __obj, args, kwargs)
        elif isinstance(__obj, type) and __obj in _CLASSES:
            budget.take(_NAMESPACE_BYTES)
            for value in args:
                budget.listed(value)
        elif not isinstance(__obj, types.FunctionType | Joiner | jinja2.Undefined):
            raise SecurityError(f"a template must not call a {type(__obj).__name__}")
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(result, range):
            budget.take(_INT_BYTES * len(result))
        return budget.made(result)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401 - any value
        budget = running_budget()
        budget.spend(1)
        if operator == "**":
            raise BudgetError("powers are not computed in templates")
        if operator == "*":
            sized, times = (left, right) if hasattr(left, "__len__") else (right, left)
            if hasattr(sized, "__len__") and isinstance(times, int):
                budget.allow((1 if isinstance(sized, str) else 8) * len(sized) * max(times, 0))
        elif operator == "%" and isinstance(left, str):
            budget.allow(percent_size(budget, left, right))
        elif isinstance(left, Markup) or isinstance(right, Markup):
            budget.allow(6 * (budget.weigh(left) + budget.weigh(right)))
        return budget.made(super().call_binop(context, operator, left, right))


class BoundedTemplate:
    """Compiled template; each rendering has its own budget. Any thread may use it."""

    def __init__(self, environment: BoundedEnvironment, source: str) -> None:
        """Compile `source`. Raises jinja2.TemplateSyntaxError, BudgetError, and the errors of Python's own compiler."""
        if len(source) > MAX_SOURCE_CHARACTERS:
            raise BudgetError(f"the template has {len(source)} characters; at most {MAX_SOURCE_CHARACTERS} are allowed")
        self._call_steps = 1 + len(source) // _CHARACTERS_PER_NODE
        with Budget():  # Jinja computes constants while it compiles
            self._template = environment.from_string(source)

    def render(self, variables: dict[str, Any]) -> str:
        """Return the rendered text. Raises BudgetError, and the errors that the template raises."""
        pieces = []
        with Budget(call_steps=self._call_steps) as budget:
            for piece in self._template.generate(variables):
                budget.take(len(piece))
                pieces.append(piece)
        return "".join(pieces)


class _Counting(NodeTransformer):
    """Puts counting filters around the nodes that Jinja compiles to plain Python."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja's
        self.generic_visit(node)
        steps = 1 + sum(1 for part in node.body for _ in part.find_all(nodes.Node))
        node.iter = _filtered(node.iter, "inferd_loop", nodes.Const(steps))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - Jinja's
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "inferd_concat")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802 - Jinja's
        self.generic_visit(node)
        is_search = any(operand.op in ("in", "notin") for operand in node.ops)
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        if len(node.ops) == 1 and any(isinstance(side, nodes.Const) for side in sides):
            if is_search and not isinstance(node.ops[0].expr, nodes.Const | nodes.List | nodes.Tuple):
                node.ops[0].expr = _filtered(node.ops[0].expr, "inferd_searched")
            return node  # the time of comparing with a constant is bounded by its length
        node.expr = _weighed_node(node.expr)
        for operand in node.ops:
            operand.expr = _weighed_node(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802 - Jinja's
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        parts = (node.arg.start, node.arg.stop, node.arg.step)
        return _filtered(node.node, "inferd_slice", *(part or nodes.Const(None) for part in parts))

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802 - Jinja's
        self.generic_visit(node)
        node.key = _weighed_node(node.key)
        return node

    def _visit_literal(self, node: nodes.List | nodes.Tuple | nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return node if getattr(node, "ctx", "load") != "load" else _filtered(node, "inferd_made")

    visit_List = visit_Tuple = visit_Dict = _visit_literal  # noqa: N815 - Jinja's


def _filtered(node: nodes.Node, name: str, *args: nodes.Node) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _weighed_node(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _filtered(node, "inferd_weighed")


def _finalized(value: Any) -> Any:  # noqa: ANN401 - any value
    running_budget().spend(1)
    return running_budget().written(value)


def _weighed(value: Any) -> Any:  # noqa: ANN401 - any value
    running_budget().weigh(value)
    return value


def _searched(value: Any) -> Any:  # noqa: ANN401 - any value
    """Return `value` after counting a search for a constant in it: linear in its length, except in a dictionary."""
    if isinstance(value, list | tuple):
        running_budget().spend(1 + len(value))
    elif not isinstance(value, dict):
        running_budget().weigh(value)
    return value


def _allowed_method(
    budget: Budget, method: types.BuiltinMethodType | types.MethodType, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """Return the arguments of a method call after counting its work. Raises BudgetError, SecurityError."""
    owner, name = method.__self__, method.__name__
    if isinstance(owner, str) and name in METHODS:
        if name == "join" and args:
            args = ([*budget.count(args[0])], *args[1:])
        allow_method(budget, owner, name, args, kwargs)
        return args
    if not any(isinstance(owner, kind) and name in names for kind, names in _METHODS.items()):
        raise SecurityError(f"a template must not call '{name}' of a {type(owner).__name__}")
    for value in (*args, *kwargs.values()):
        budget.weigh(value)
    if isinstance(owner, list | tuple) and name != "copy":
        budget.weigh(owner)
    return args
