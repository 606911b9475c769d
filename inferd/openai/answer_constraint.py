"""What the text of an answer must match: tools, response format and reasoning in one grammar."""

from __future__ import annotations

import json

from inferd.constraint import JSON_WHITE_SPACE, Constraint, ConstraintKind
from inferd.errors import InvalidRequestError
from inferd.openai.dialects.grammar import CallableTool, answer_grammar
from inferd.openai.dialects.spec import Dialect, ReasoningState
from inferd.openai.requests import ChatRequest

_SCHEMAS = (ConstraintKind.JSON_SCHEMA, ConstraintKind.JSON_SCHEMA_LENIENT)


def answer_constraint(request: ChatRequest, dialect: Dialect, reasoning: ReasoningState) -> Constraint | None:
    """None: any text. A response format is one of the content: reasoning before it stays free unless it is off, calls
    in its place stay possible. A caller's own grammar is one of the whole text.

    Raises:
        InvalidRequestError: a grammar beside tools or reasoning; a schema that is no JSON, or that the model's
            notation of tool calls cannot express.
    """
    own = request.constraint
    tools = request.tool_set
    if own is not None and own.kind not in _SCHEMAS:
        _check_alone(own, has_tools=bool(tools.functions), in_reasoning=reasoning is ReasoningState.OPEN)
        return own
    reasons = dialect.channels or (dialect.reasoning is not None and reasoning is not ReasoningState.OFF)
    if not tools.functions and (own is None or not reasons):
        return own
    callables = [
        CallableTool(function.name, function.schema, strict=tools.required or bool(function.strict))
        for function in tools.functions
    ]
    grammar = answer_grammar(
        dialect,
        callables,
        reasoning=reasoning,
        required=tools.required,
        parallel=tools.parallel,
        content=None if own is None else _json_content(own),
    )
    return Constraint(ConstraintKind.LARK, grammar, "tools" if own is None else own.param)


def _check_alone(own: Constraint, *, has_tools: bool, in_reasoning: bool) -> None:
    if has_tools:
        why = "excludes 'tools'; leave one of them out, or set 'tool_choice' to none"
    elif in_reasoning:
        why = "excludes reasoning, which this model's prompt opens; set 'reasoning_effort' to none, or leave it out"
    else:
        return
    raise InvalidRequestError(f"'{own.param}' {why}.", param=own.param, code="invalid_value")


def _json_content(own: Constraint) -> str:
    try:
        schema = json.loads(own.source)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"The JSON schema in '{own.param}' is not valid JSON: {error}.", param=own.param, code="invalid_json_schema"
        ) from error
    if not isinstance(schema, dict):
        schema = {"allOf": [schema]}
    lenient = own.kind is ConstraintKind.JSON_SCHEMA_LENIENT
    guidance = {"whitespace_pattern": JSON_WHITE_SPACE, "lenient": lenient}
    return f"%json {json.dumps(schema | {'x-guidance': guidance}, ensure_ascii=False)}"
