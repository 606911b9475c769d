"""What a chat template makes of tool calls, found out by rendering small conversations with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferd.errors import InvalidRequestError
from inferd.openai.chat_template import ChatTemplate
from inferd.openai.dialects.answer_parser import answer_parser
from inferd.openai.dialects.deltas import CallArguments, CallStart, Delta
from inferd.openai.dialects.spec import Dialect

_NAME = "probe_tool"
_SCHEMA: dict[str, Any] = {"type": "object", "properties": {"probe_key": {"type": "string"}}, "required": ["probe_key"]}
_TOOL = {"type": "function", "function": {"name": _NAME, "description": "A probe.", "parameters": _SCHEMA}}
_ARGUMENTS = {"probe_key": "probe value"}
_ARGUMENTS_TEXT = '{"probe_key": "probe value"}'
_USER: dict[str, object] = {"role": "user", "content": "probe question"}
_ID_LENGTH = 9


@dataclass(frozen=True, slots=True)
class TemplateTraits:
    """Attributes:
    describes_tools: it tells the model which tools there are.
    writes_calls: it writes tool calls so that the dialect's parser reads them back.
    arguments_as_text: it wants a call's arguments as JSON text, not as an object.
    null_content: it writes calls only of a message whose content is null.
    takes_system: it takes a system message.
    wants_list: it fails where `tools` is null and not an empty list.
    """

    describes_tools: bool = False
    writes_calls: bool = False
    arguments_as_text: bool = False
    null_content: bool = False
    takes_system: bool = True
    wants_list: bool = False


def probe_template(template: ChatTemplate, dialect: Dialect) -> TemplateTraits:
    """Renders up to nine conversations of a few words; takes milliseconds."""
    system: dict[str, object] = {"role": "system", "content": "probe instruction"}
    wants_list = _rendered(template, [_USER]) is None and _rendered(template, [_USER], tools=[]) is not None
    with_system = _rendered(template, [system, _USER], tools=[] if wants_list else None)
    takes_system = "probe instruction" in (with_system or "")
    prompt = _rendered(template, [_USER], add_generation_prompt=True, tools=[_TOOL])
    if not dialect.is_native or prompt is None:
        return TemplateTraits(takes_system=takes_system, wants_list=wants_list)
    describes = "A probe." in prompt
    for null_content in (False, True):
        for as_text in (False, True):
            if _reads_back(template, dialect, prompt, as_text=as_text, null_content=null_content):
                return TemplateTraits(describes, True, as_text, null_content, takes_system, wants_list)
    return TemplateTraits(describes, takes_system=takes_system, wants_list=wants_list)


def _reads_back(template: ChatTemplate, dialect: Dialect, prompt: str, *, as_text: bool, null_content: bool) -> bool:
    call = {
        "id": "p" * _ID_LENGTH,
        "type": "function",
        "function": {"name": _NAME, "arguments": _ARGUMENTS_TEXT if as_text else _ARGUMENTS},
    }
    answer: dict[str, object] = {"role": "assistant", "content": None if null_content else "", "tool_calls": [call]}
    text = _rendered(template, [_USER, answer], tools=[_TOOL])
    if text is None:
        return False
    parser = answer_parser(dialect, {_NAME: _SCHEMA})
    return _calls([*parser.push(answer_text(text, prompt, dialect)), *parser.finish()]) == [(_NAME, _ARGUMENTS_TEXT)]


def answer_text(conversation: str, prompt: str, dialect: Dialect) -> str:
    """What an assistant would have written of a rendered conversation: the part beyond the prompt. A prompt may end
    in words that a conversation does not repeat (`<think>`); the answer then begins at its first marker."""
    length = next(
        (place for place, pair in enumerate(zip(conversation, prompt, strict=False)) if pair[0] != pair[1]),
        min(len(conversation), len(prompt)),
    )
    if length == len(prompt):
        return conversation[length:]
    markers = dialect.triggers or ("{",)
    starts = (conversation.find(marker, max(0, length - len(marker) + 1)) for marker in (*markers, "{"))
    return conversation[min((start for start in starts if start >= 0), default=length) :]


def _calls(deltas: Iterable[Delta]) -> list[tuple[str, str]]:
    names: list[str] = []
    arguments: list[str] = []
    for delta in deltas:
        if isinstance(delta, CallStart):
            names.append(delta.name)
            arguments.append("")
        elif isinstance(delta, CallArguments):
            arguments[delta.index] += delta.text
    return list(zip(names, arguments, strict=True))


def _rendered(
    template: ChatTemplate,
    messages: Sequence[Mapping[str, object]],
    *,
    add_generation_prompt: bool = False,
    **variables: object,
) -> str | None:
    try:
        segments = template.render(messages, add_generation_prompt=add_generation_prompt, **variables)
    except InvalidRequestError:
        return None
    return "".join(segment.text for segment in segments)
