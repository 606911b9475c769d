"""Messages of a request in the form that a model's chat template takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from inferd.chat.dialects.spec import CallFormat, Dialect
from inferd.chat.traits import TemplateTraits
from inferd.wire.openai.messages import Message
from inferd.wire.openai.tools import ToolSet


def conversation(
    messages: Sequence[Message], tools: ToolSet, dialect: Dialect, traits: TemplateTraits
) -> list[dict[str, Any]]:
    """Return dictionaries for `ChatTemplate.render`: role, content as a string, name if given, calls and results in the
    template's own form. For a template without tools, calls and results are text, and a description is added."""
    native = traits.writes_calls
    rendered = list(_native(messages, dialect, traits)) if native else _as_text(messages, dialect)
    if tools.functions and not traits.describes_tools:
        parallel = tools.tells_parallel and not dialect.one_call
        text = _tool_description(tools.template_tools(), dialect.formats[0], parallel=parallel)
        rendered = _with_instruction(rendered, text, traits)
    return rendered


def _native(messages: Sequence[Message], dialect: Dialect, traits: TemplateTraits) -> Iterator[dict[str, Any]]:
    """Yield the messages. If the template takes one call a message, each call is a message, followed by its result."""
    for index, message in enumerate(messages):
        calls = message.tool_calls or ()
        if message.role == "tool" and _is_split(messages, index, dialect):
            continue  # already yielded with its call
        if len(calls) < 2 or not dialect.one_call:
            yield _message(message, dialect, traits)
            continue
        results = {result.tool_call_id: result for result in _results(messages, index)}
        for number in range(len(calls)):
            yield _message(message, dialect, traits, only_call=number)
            yield _message(results[calls[number].id], dialect, traits)


def _results(messages: Sequence[Message], index: int) -> Iterator[Message]:
    for message in messages[index + 1 :]:
        if message.role != "tool":
            return
        yield message


def _is_split(messages: Sequence[Message], index: int, dialect: Dialect) -> bool:
    """Return whether the tool message at `index` answers a message of several calls that becomes several messages."""
    caller = next(message for message in reversed(messages[:index]) if message.role != "tool")
    return dialect.one_call and len(caller.tool_calls or ()) > 1


def _message(
    message: Message, dialect: Dialect, traits: TemplateTraits, *, only_call: int | None = None
) -> dict[str, Any]:
    rendered: dict[str, Any] = {"role": message.role, "content": message.text()}
    if message.name:
        rendered["name"] = message.name
    if message.tool_call_id is not None:
        rendered["tool_call_id"] = _call_id(message.tool_call_id, dialect)
    reasoning = message.reasoning_text()
    if reasoning and only_call in (None, 0):
        # gpt-oss's template calls it thinking, and takes it only if a message with calls has no content.
        if not dialect.channels:
            rendered["reasoning_content"] = reasoning
        elif not (message.tool_calls and rendered["content"]):
            rendered["thinking"] = reasoning
    if message.tool_calls:
        if only_call is not None and only_call > 0:
            rendered["content"] = ""
        chosen = message.tool_calls if only_call is None else message.tool_calls[only_call : only_call + 1]
        rendered["tool_calls"] = [
            {
                "id": _call_id(call.id, dialect),
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": _text(call.arguments()) if traits.arguments_as_text else call.arguments(),
                },
            }
            for call in chosen
        ]
        if traits.null_content and not rendered["content"]:
            rendered["content"] = None
    return rendered


def _as_text(messages: Sequence[Message], dialect: Dialect) -> list[dict[str, Any]]:
    """Return the messages with calls and results as text. Results and the user's messages right after them become one
    message, as many templates want the roles to alternate; other messages of a user in a row stay apart."""
    rendered: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        content = message.text()
        follows_result = index > 0 and messages[index - 1].role == "tool"
        if message.role == "tool":
            content = _written_result(content)
        if follows_result and message.role in ("tool", "user"):
            rendered[-1]["content"] += f"\n{content}"
            continue
        calls = [
            _written_call(call.function.name, _text(call.arguments()), dialect.formats[0])
            for call in message.tool_calls or ()
        ]
        role = "user" if message.role == "tool" else message.role
        rendered.append({"role": role, "content": "\n".join(filter(None, [content, *calls])) if calls else content})
        if message.name and message.role != "tool":
            rendered[-1]["name"] = message.name
        if reasoning := message.reasoning_text():
            rendered[-1]["reasoning_content"] = reasoning
    return rendered


def _with_instruction(messages: list[dict[str, Any]], text: str, traits: TemplateTraits) -> list[dict[str, Any]]:
    """Add `text` to the end of the system message, or to the first user's if the template takes no system message."""
    first = messages[0]
    if first["role"] in ("system", "developer"):
        return [first | {"content": f"{first['content']}\n\n{text}"}, *messages[1:]]
    if traits.takes_system:
        return [{"role": "system", "content": text}, *messages]
    if first["role"] == "user":
        return [first | {"content": f"{text}\n\n{first['content']}"}, *messages[1:]]
    return [{"role": "user", "content": text}, *messages]


def _call_id(call_id: str, dialect: Dialect) -> str:
    """Return the id, or a digest of it if the template takes only ids of one length; equal ids stay equal."""
    length = dialect.call_id_length
    if length is None or (len(call_id) == length and call_id.isalnum()):
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:length]


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _tool_description(tools: Sequence[dict[str, Any]], format: CallFormat, *, parallel: bool) -> str:
    """Return the description of tools for a system prompt; `tools` are in the form that templates read."""
    lines = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    example = _written_call("FUNCTION_NAME", '{"PARAMETER": VALUE}', format)
    several = "For several calls, write one after the other. " if parallel else "Make one call at most. "
    return (
        "You may call functions to answer the user. These are the functions, each with a JSON schema of its "
        f"parameters:\n\n{lines}\n\n"
        "To call a function, answer with exactly this, with the function's name and arguments filled in:\n"
        f"{example}\n\n"
        f"{several}Its result will come in <tool_response></tool_response>. If no function helps, just answer."
    )


def _written_call(name: str, arguments: str, format: CallFormat) -> str:
    """Return a call in a format with JSON arguments."""
    assert format.notation == "json", "calls are described in JSON"
    if format.name_end is None:
        body = f'{{"name": {json.dumps(name)}, "{format.arguments_key}": {arguments}}}'
    else:
        body = f"{name}{format.name_end}{format.arguments_begin}{arguments}"
    return f"{format.section_begin}{format.begin}{body}{format.end}{format.section_end}"


def _written_result(content: str) -> str:
    """Return a tool's result as text of a user's message."""
    return f"<tool_response>\n{content}\n</tool_response>"
