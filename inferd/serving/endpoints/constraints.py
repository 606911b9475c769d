"""Compilation of an answer's constraint, and its refusal in the caller's terms."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from inferd.chat.schemas.reader import SchemaDetail
from inferd.constraint import Constraint, ConstraintKind
from inferd.engine.grammar.compiler import ConstraintCompiler, GrammarError
from inferd.engine.grammar.constraint import CompiledConstraint
from inferd.engine.grammar.trial import TOO_COMPLEX
from inferd.engine.messages import TrafficClass
from inferd.errors import InvalidRequestError
from inferd.serving.endpoints.endpoint import RequestLabels

MAX_REASON_CHARACTERS = 500
MAX_PATH_CHARACTERS = 200


async def compiled_constraint(
    constraint: Constraint | None,
    loosened: Callable[[SchemaDetail], Constraint | None],
    compiler: ConstraintCompiler,
    labels: RequestLabels,
) -> CompiledConstraint | None:
    """Compile a constraint. Schemas that are not strict, and are refused together, are tried again with less of them.

    Args:
        constraint: None for any text.
        loosened: returns the constraint again, with less of the schemas that are not strict.

    Raises:
        InvalidRequestError: the constraint cannot be enforced.
        OverloadedError, RateLimitError: see ConstraintCompiler.compile.
    """
    if constraint is None:
        return None
    for looser in (SchemaDetail.SHAPE, SchemaDetail.ANY):
        try:
            return await _compiled(constraint, compiler, labels)
        except InvalidRequestError:
            if constraint.faults:
                raise
            less = await asyncio.to_thread(loosened, looser)
            if less is None or (less == constraint and looser is SchemaDetail.ANY):
                raise
            constraint = less
    return await _compiled(constraint, compiler, labels)


async def _compiled(constraint: Constraint, compiler: ConstraintCompiler, labels: RequestLabels) -> CompiledConstraint:
    is_batch = labels.traffic_class is TrafficClass.BATCH
    try:
        return await compiler.compile(constraint, labels.tenant, is_batch=is_batch)
    except GrammarError as error:
        raise refused(constraint, error) from error


def refused(constraint: Constraint, error: GrammarError) -> InvalidRequestError:
    """Return the refusal of a constraint in the caller's terms. It names the path of its first fault, else that of the
    schema at fault, else the field that the constraint came in."""
    is_own = constraint.kind in (ConstraintKind.REGEX, ConstraintKind.LARK, ConstraintKind.GRAMMAR)
    is_own = is_own and not constraint.schemas and constraint.param != "tools"
    reason = error.reason[:MAX_REASON_CHARACTERS]
    if constraint.faults:
        fault = constraint.faults[0]
        param = _one_line(fault.path)
        message = f"The JSON schema cannot be enforced: '{param}' {fault.why}. Change it, or leave it out."
    elif is_own:
        param = constraint.param
        message = f"The grammar in '{param}' cannot be enforced: {reason}"
    else:
        param = error.path or constraint.param
        if constraint.kind is ConstraintKind.LARK and error.path is None:
            # The reason would quote a grammar that the caller did not write.
            reason = reason if reason == TOO_COMPLEX else "its schemas are too complex together; make them smaller"
        message = f"The JSON schema in '{param}' cannot be enforced: {reason}"
    return InvalidRequestError(message, param=param, code="invalid_grammar" if is_own else "invalid_json_schema")


def _one_line(path: str) -> str:
    line = " ".join(path.split())
    return line if len(line) <= MAX_PATH_CHARACTERS else line[: MAX_PATH_CHARACTERS - 3] + "..."
