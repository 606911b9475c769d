"""Constraint of an answer's text: tools, response format and reasoning in one grammar."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from inferd.chat.dialects.grammar import CallableTool, answer_grammar
from inferd.chat.dialects.spec import Dialect, ReasoningState
from inferd.chat.schemas.reader import ReadSchema, SchemaDetail, read_schema
from inferd.constraint import JSON_WHITE_SPACE, Constraint, ConstraintKind, SchemaFault
from inferd.errors import InvalidRequestError
from inferd.wire.openai.chat_request import ChatRequest

_WITHOUT_REASONING = (ReasoningState.OFF, ReasoningState.CONTINUED)


def answer_constraint(
    request: ChatRequest,
    dialect: Dialect,
    reasoning: ReasoningState,
    detail: SchemaDetail = SchemaDetail.FULL,
) -> Constraint | None:
    """Return the constraint of the whole text, or None for any text.

    A response format constrains the content only: reasoning may come before it unless it is off, and calls may take its
    place. A caller's own grammar constrains the whole text.

    Args:
        detail: part of the schemas without `strict` that is enforced.

    Raises:
        InvalidRequestError: a grammar is combined with tools or reasoning, or a schema is no JSON, has no finite value,
            or is strict and cannot be expressed in the model's notation of tool calls.
    """
    own = request.constraint
    tools = request.tool_set
    if own is not None and not own.is_schema:
        _check_alone(own, has_tools=bool(tools.functions), in_reasoning=reasoning is ReasoningState.OPEN)
        return own
    if own is not None:
        own = text_constraint(own, detail)
    reasons = dialect.channels or (dialect.reasoning is not None and reasoning not in _WITHOUT_REASONING)
    if not tools.functions and (own is None or not reasons):
        return own
    callables, faults, schemas = _callable_tools(request, detail)
    grammar = answer_grammar(
        dialect,
        callables,
        reasoning=reasoning,
        required=tools.required,
        parallel=tools.parallel,
        content=None if own is None else _json_content(own),
    )
    if own is not None:
        faults += own.faults
        schemas += ((own.param, own.source),) if own.kind is ConstraintKind.JSON_SCHEMA else ()
    return Constraint(ConstraintKind.LARK, grammar, "tools" if own is None else own.param, faults, schemas)


def _callable_tools(
    request: ChatRequest, detail: SchemaDetail
) -> tuple[list[CallableTool], tuple[SchemaFault, ...], tuple[tuple[str, str], ...]]:
    """Return the tools that may be called, and the faults and (path, schema) of the strict ones."""
    tools = request.tool_set
    places = {tool.function.name: index for index, tool in enumerate(request.tools or ()) if tool.function is not None}
    callables: list[CallableTool] = []
    faults: tuple[SchemaFault, ...] = ()
    schemas: tuple[tuple[str, str], ...] = ()
    for function in tools.allowed:
        path = f"tools[{places[function.name]}].function.parameters"
        is_strict = bool(function.strict)
        read = read_schema(function.schema, path, SchemaDetail.FULL if is_strict else detail)
        if read.is_endless and (is_strict or tools.required):
            raise _endless(path)
        if is_strict:
            faults += read.faults
            schemas += ((path, json.dumps(function.schema, ensure_ascii=False)),)
        schema: dict[str, Any] = function.schema if is_strict else read.schema
        callables.append(CallableTool(function.name, schema, strict=is_strict))
    return callables, faults, schemas


def text_constraint(own: Constraint, detail: SchemaDetail = SchemaDetail.FULL) -> Constraint:
    """Return the constraint of a text without tools or reasoning: a strict schema with its faults, any other schema
    without its unenforceable keywords, a grammar as it is. Raises InvalidRequestError, as `answer_constraint` does."""
    if not own.is_schema:
        return own
    if own.kind is ConstraintKind.JSON_SCHEMA:
        read = _read_source(own, SchemaDetail.FULL)
        if read.is_endless:
            raise _endless(own.param)
        return replace(own, faults=read.faults)
    return replace(own, source=json.dumps(_read_source(own, detail).schema, ensure_ascii=False))


def _read_source(own: Constraint, detail: SchemaDetail) -> ReadSchema:
    try:
        return read_schema(json.loads(own.source), own.param, detail)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"The JSON schema in '{own.param}' is not valid JSON: {error}.", param=own.param, code="invalid_json_schema"
        ) from error


def _endless(path: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The schema '{path}' has no finite value: each value needs another one inside. Make a property optional, or "
        "allow null or an empty array.",
        param=path,
        code="invalid_json_schema",
    )


def _check_alone(own: Constraint, *, has_tools: bool, in_reasoning: bool) -> None:
    if has_tools:
        why = "excludes 'tools': leave one of them out, or set 'tool_choice' to none"
    elif in_reasoning:
        why = "excludes reasoning, which this model's prompt opens: set 'reasoning_effort' to none, or leave it out"
    else:
        return
    raise InvalidRequestError(f"'{own.param}' {why}.", param=own.param, code="invalid_value")


def _json_content(own: Constraint) -> str:
    guidance = {"whitespace_pattern": JSON_WHITE_SPACE, "lenient": own.kind is ConstraintKind.JSON_SCHEMA_LENIENT}
    return f"%json {json.dumps(json.loads(own.source) | {'x-guidance': guidance}, ensure_ascii=False)}"
