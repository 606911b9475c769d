"""Tools for templates that know none: described in the system prompt, calls and results written as plain text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from inferd.chat.dialects.spec import CallFormat


def describe_tools(tools: Sequence[dict[str, Any]], format: CallFormat, *, parallel: bool) -> str:
    """What a system prompt says of tools; they are as templates get them."""
    lines = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    example = written_call("FUNCTION_NAME", '{"PARAMETER": VALUE}', format)
    several = "For several calls, write one after the other. " if parallel else "Make one call at most. "
    return (
        "You may call functions to answer the user. These are the functions, each with a JSON schema of its "
        f"parameters:\n\n{lines}\n\n"
        "To call a function, answer with exactly this, with the function's name and arguments filled in:\n"
        f"{example}\n\n"
        f"{several}Its result will come in <tool_response></tool_response>. If no function helps, just answer."
    )


def written_call(name: str, arguments: str, format: CallFormat) -> str:
    """A call as the format writes it, with arguments in JSON."""
    assert format.notation == "json", "calls are described in JSON"
    if format.name_end is None:
        body = f'{{"name": {json.dumps(name)}, "{format.arguments_key}": {arguments}}}'
    else:
        body = f"{name}{format.name_end}{format.arguments_begin}{arguments}"
    return f"{format.section_begin}{format.begin}{body}{format.end}{format.section_end}"


def written_result(content: str) -> str:
    """A tool's result, as a user's message brings it."""
    return f"<tool_response>\n{content}\n</tool_response>"
