"""Call arguments in Python's notation: `city="Paris", days=3`."""

from __future__ import annotations

import ast

_CONSTANTS = {"true": True, "false": False, "null": None}


def read_python(text: str) -> tuple[dict[str, object], int] | None:
    """Return the keyword arguments up to the bracket that closes the call, and the place of that bracket; None if
    `text` has no such bracket. An argument that is no literal stays text; an argument without a name, and text that is
    not Python, are the argument `input`."""
    position = _closing_bracket(text)
    if position is None:
        return None
    try:
        call = ast.parse(f"f({text[: position + 1]}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {"input": text[:position]}, position
    assert isinstance(call, ast.Call), "the text is that of a call"
    values = {"input": _literal(call.args[0])} if call.args else {}
    return values | {word.arg: _literal(word.value) for word in call.keywords if word.arg}, position


def _closing_bracket(text: str) -> int | None:
    """Return the place of the first closing bracket that is in no string and closes no other bracket, or None."""
    depth, quote, escaped = 0, "", False
    for position, character in enumerate(text):
        if quote:
            if not escaped and character == quote:
                quote = ""
            escaped = not escaped and character == "\\"
        elif character in "\"'":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            if depth == 0:
                return position
            depth -= 1
    return None


def read_python_literal(text: str) -> object:
    """Return the value of a Python literal such as `{'a': True}`; the text itself if it is not one."""
    try:
        return _literal(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text


def _literal(node: ast.expr) -> object:
    """Return the value of a node that JSON can hold; the source text of any other node."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool | None):
        return node.value
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return _CONSTANTS[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = node.operand.value
        return -value if isinstance(value, int | float) else ast.unparse(node)
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        return {str(key.value): _literal(item) for key, item in zip(node.keys, node.values, strict=True)}  # type: ignore[union-attr]
    return ast.unparse(node)
