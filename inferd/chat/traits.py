"""Traits of a chat template, found by rendering small conversations with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from inferd.chat.dialects.answer_parser import answer_parser
from inferd.chat.dialects.spec import Dialect
from inferd.chat.sandbox.budget import BudgetError
from inferd.chat.template import ChatTemplate
from inferd.chat.turn_rules import SYSTEM_ROLES, TurnRules
from inferd.errors import ConfigError, InvalidRequestError
from inferd.wire.answer_deltas import AnswerDelta, CallArguments, CallStart

_NAME = "probe_tool"
_SCHEMA: dict[str, Any] = {"type": "object", "properties": {"probe_key": {"type": "string"}}, "required": ["probe_key"]}
_TOOL = {"type": "function", "function": {"name": _NAME, "description": "A probe.", "parameters": _SCHEMA}}
_ARGUMENTS = {"probe_key": "probe value"}
_ARGUMENTS_TEXT = '{"probe_key": "probe value"}'
_USER: dict[str, object] = {"role": "user", "content": "probe question"}
_ID_LENGTH = 9
_RESULT: dict[str, object] = {
    "role": "tool",
    "content": "probe result",
    "tool_call_id": "p" * _ID_LENGTH,
    "name": _NAME,
}
_ANSWERS = ("", " ", "OK.")
"""The shortest answers; some templates refuse the first ones."""


@dataclass(frozen=True, slots=True)
class TemplateTraits:
    """Traits of one template.

    Attributes:
        describes_tools: it describes the tools to the model.
        writes_calls: it writes tool calls that the dialect's parser reads back.
        arguments_as_text: it takes a call's arguments as JSON text, not as an object.
        null_content: it writes the calls of a message only if the content is null.
        takes_system: it takes a system message.
        wants_list: it fails if `tools` is null and not an empty list.
        turns: conversations that it takes.
    """

    describes_tools: bool = False
    writes_calls: bool = False
    arguments_as_text: bool = False
    null_content: bool = False
    takes_system: bool = True
    wants_list: bool = False
    turns: TurnRules = field(default_factory=TurnRules)


def probe_template(template: ChatTemplate, dialect: Dialect) -> TemplateTraits:
    """Return the traits of a template, by rendering some thirty conversations of a few words; takes milliseconds.

    Sets `template.gives_parts` if the template writes contents only as parts.

    Raises:
        ConfigError: the template does not write a user's message, or exceeds its budget.
    """
    wants_list = _rendered(template, [_USER]) is None and _rendered(template, [_USER], tools=[]) is not None
    variables: dict[str, object] = {"tools": []} if wants_list else {}
    turns = _probe_turns(template, variables)
    traits = TemplateTraits(takes_system=turns.system is not None, wants_list=wants_list, turns=turns)
    prompt = _rendered(template, [_USER], add_generation_prompt=True, tools=[_TOOL])
    if not dialect.is_native or prompt is None:
        return traits
    traits = replace(traits, describes_tools="A probe." in prompt)
    for null_content in (False, True):
        for as_text in (False, True):
            call = _call(as_text=as_text, null_content=null_content)
            if _reads_back(template, dialect, prompt, call):
                return replace(
                    traits,
                    writes_calls=True,
                    arguments_as_text=as_text,
                    null_content=null_content,
                    turns=_with_calls(template, turns, call),
                )
    return traits


def _with_calls(template: ChatTemplate, turns: TurnRules, call: Mapping[str, object]) -> TurnRules:
    called, text = [_USER, call, _RESULT], {"content": "probe text"}
    between = [[], *([{"role": "assistant", "content": answer}] for answer in _ANSWERS)]
    takes = (answer for answer in between if _takes(template, [*called, *answer, _turn("user", 2)], tools=[_TOOL]))
    answer = next(takes, between[1])
    system = {"role": turns.system, "content": "probe instruction"}
    return replace(
        turns,
        answer_after_result=answer[0]["content"] if answer else None,
        text_with_calls=_takes(template, [_USER, {**call, **text}, _RESULT], tools=[_TOOL]),
        system_without_question=turns.system_without_question and _takes(template, [system, *called], tools=[_TOOL]),
    )


def _turn(role: str, number: int) -> dict[str, object]:
    return {"role": role, "content": f"probe {role} {number}"}


def _probe_turns(template: ChatTemplate, variables: Mapping[str, object]) -> TurnRules:
    """Return the rules of the template. Raises ConfigError if it does not write a user's message."""
    user, second = _turn("user", 1), _turn("user", 2)
    answer, other = _turn("assistant", 1), _turn("assistant", 2)

    def takes(*messages: Mapping[str, object]) -> bool:
        return _takes(template, messages, **variables)

    empty = {"role": "system", "content": ""}
    needs_system = not takes(user) and takes(empty, user)
    if not needs_system and not takes(user):
        template.gives_parts = True
        needs_system = not takes(user) and takes(empty, user)
    if not needs_system and not takes(user):
        template.gives_parts = False
        raise ConfigError(_refusal(template, user, variables))
    roles = [role for role in SYSTEM_ROLES if takes(_turn(role, 1), user)]
    default = roles[0] if roles else None
    leading = [[_turn(role, 1)] for role in roles]
    front = leading[0] if leading and needs_system else []
    return TurnRules(
        system=default,
        developer="developer" if "developer" in roles else default,
        many_systems=all(takes(_turn(one, 1), _turn(two, 2), user) for one in roles for two in roles),
        late_system=all(
            takes(*front, user, answer, _turn(role, 2), second)
            and takes(*front, user, _turn(role, 2), second)
            and takes(*front, user, answer, second, _turn(role, 2))
            and takes(_turn(roles[0], 1), user, answer, _turn(role, 2), second)
            for role in roles
        ),
        system_without_question=all(takes(*system, user, answer) for system in leading),
        many_users=takes(*front, user, second) and takes(*front, user, answer, second, _turn("user", 3)),
        many_assistants=takes(*front, user, answer, other, second),
        assistant_first=all(takes(*system, answer, user) for system in (leading if front else [[], *leading])),
        no_user=all(takes(*system) and takes(*system, answer) for system in leading) and (bool(front) or takes(answer)),
        needs_system=needs_system,
    )


def _takes(template: ChatTemplate, messages: Sequence[Mapping[str, object]], **variables: object) -> bool:
    """Return whether the template writes the contents of all messages."""
    text = _rendered(template, messages, add_generation_prompt=True, **variables)
    return text is not None and all(str(message["content"] or "") in text.casefold() for message in messages)


def _refusal(template: ChatTemplate, user: Mapping[str, object], variables: Mapping[str, object]) -> str:
    advice = "name another Jinja file as chat_template in models.toml"
    template.gives_parts = False
    try:
        template.render([user], True, **variables)
    except InvalidRequestError as error:
        return f"{template.name}: the template refuses a user's message ({error.__cause__ or error}); {advice}"
    return f"{template.name}: the template does not write a user's message into the prompt; {advice}"


def _call(*, as_text: bool, null_content: bool) -> dict[str, object]:
    function = {"name": _NAME, "arguments": _ARGUMENTS_TEXT if as_text else _ARGUMENTS}
    call = {"id": "p" * _ID_LENGTH, "type": "function", "function": function}
    return {"role": "assistant", "content": None if null_content else "", "tool_calls": [call]}


def _reads_back(template: ChatTemplate, dialect: Dialect, prompt: str, call: dict[str, object]) -> bool:
    """Return whether the template writes the call so that the dialect's parser reads it, and the call's result."""
    text = _rendered(template, [_USER, call], tools=[_TOOL])
    if text is None or not _takes(template, [_USER, call, _RESULT], tools=[_TOOL]):
        return False
    parser = answer_parser(dialect, {_NAME: _SCHEMA})
    return _calls([*parser.push(answer_text(text, prompt, dialect)), *parser.finish()]) == [(_NAME, _ARGUMENTS_TEXT)]


def answer_text(conversation: str, prompt: str, dialect: Dialect) -> str:
    """Return the assistant's part of a rendered conversation: the text after the prompt. If the prompt ends in text
    that the conversation does not repeat (`<think>`), the answer begins at its first marker."""
    length = next(
        (place for place, pair in enumerate(zip(conversation, prompt, strict=False)) if pair[0] != pair[1]),
        min(len(conversation), len(prompt)),
    )
    if length == len(prompt):
        return conversation[length:]
    markers = dialect.triggers or ("{",)
    starts = (conversation.find(marker, max(0, length - len(marker) + 1)) for marker in (*markers, "{"))
    return conversation[min((start for start in starts if start >= 0), default=length) :]


def _calls(deltas: Iterable[AnswerDelta]) -> list[tuple[str, str]]:
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
    except InvalidRequestError as error:
        if isinstance(error.__cause__, BudgetError):
            raise ConfigError(f"{template.name}: {error.__cause__}, on a conversation of a few words") from error
        return None
    return "".join(segment.text for segment in segments)
