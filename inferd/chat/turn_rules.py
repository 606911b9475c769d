"""Rules of strict chat templates for the turns of a conversation, and the arrangement of messages by them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SYSTEM_ROLES = ("system", "developer")


@dataclass(frozen=True, slots=True)
class TurnRules:
    """Conversations that a template takes unchanged, with every message written.

    Attributes:
        system: role of a system message at the front; None if the template takes none.
        developer: role of a developer message at the front; None if the template takes none.
        many_systems: several system messages at the front are taken.
        late_system: a system message at any other place is taken.
        system_without_question: a system message is taken if the last message is not the user's.
        many_users: two messages of the user in a row are taken.
        many_assistants: two messages of the assistant in a row are taken.
        assistant_first: a message of the assistant before the first of the user is taken.
        no_user: a conversation without a message of the user is taken.
        answer_after_result: content of the assistant's message that must stand between a tool's result and the user's
            next message; None if the template needs none.
        text_with_calls: a message of the assistant with both text and calls is taken.
        needs_system: only conversations that begin with a system message are taken.
    """

    system: str | None = "system"
    developer: str | None = "system"
    many_systems: bool = True
    late_system: bool = True
    system_without_question: bool = True
    many_users: bool = True
    many_assistants: bool = True
    assistant_first: bool = True
    no_user: bool = True
    answer_after_result: str | None = None
    text_with_calls: bool = True
    needs_system: bool = False


def arranged(messages: Sequence[dict[str, Any]], rules: TurnRules) -> list[dict[str, Any]]:
    """Return the messages, changed only where the template does not take them. No text is lost.

    A system message at a place that the template does not take becomes part of the user's message after it, else of the
    user's message before it, else a message of the user.
    """
    num_leading = next((i for i, message in enumerate(messages) if not _is_system(message)), len(messages))
    leading, turns = list(messages[:num_leading]), list(messages[num_leading:])
    late = rules.late_system
    ends_otherwise = bool(turns) and turns[-1]["role"] in ("assistant", "tool")
    if rules.system is None or (ends_otherwise and not rules.system_without_question):
        leading, turns, late = [], [*leading, *turns], False
    elif len(leading) > 1 and not rules.many_systems:
        leading = [_joined(leading)]
    if not late:
        turns = _without_system(turns)
    if rules.needs_system and not leading:
        leading = [{"role": "system", "content": ""}]
    turns = list(_merged(turns, rules))
    if _lacks_user(turns, rules):
        turns = [{"role": "user", "content": ""}, *turns]
    if rules.answer_after_result is not None:
        turns = list(_answered(turns, rules.answer_after_result))
    return [_named(message, rules) for message in (*leading, *turns)]


def _is_system(message: dict[str, Any]) -> bool:
    return message["role"] in SYSTEM_ROLES


def _without_system(turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    pending: list[dict[str, Any]] = []
    for turn in turns:
        if _is_system(turn):
            pending.append(turn)
            continue
        if pending and turn["role"] == "user":
            turn = _joined([*pending, turn], role="user")
        elif pending:
            _add_user(result, pending)
        pending = []
        result.append(turn)
    if pending:
        _add_user(result, pending)
    return result


def _add_user(turns: list[dict[str, Any]], texts: Sequence[dict[str, Any]]) -> None:
    """Append texts to the last message if it is the user's, else add a message of the user."""
    if turns and turns[-1]["role"] == "user":
        turns[-1] = _joined([turns[-1], *texts])
    else:
        turns.append(_joined(texts, role="user"))


def _merged(turns: Iterable[dict[str, Any]], rules: TurnRules) -> Iterator[dict[str, Any]]:
    """Join messages of one role in a row, for the roles that must alternate."""
    roles = {role for role, many in (("user", rules.many_users), ("assistant", rules.many_assistants)) if not many}
    row: list[dict[str, Any]] = []
    for turn in turns:
        if row and (turn["role"] != row[0]["role"] or turn["role"] not in roles):
            yield _joined(row)
            row = []
        if row and "tool_calls" in turn and not rules.text_with_calls:
            yield from (_joined(row), {"role": "user", "content": ""})
            row = []
        row.append(turn)
    if row:
        yield _joined(row)


def _lacks_user(turns: Sequence[dict[str, Any]], rules: TurnRules) -> bool:
    if not any(turn["role"] == "user" for turn in turns):
        return not rules.no_user or (bool(turns) and not rules.assistant_first)
    return turns[0]["role"] == "assistant" and not rules.assistant_first


def _answered(turns: Iterable[dict[str, Any]], answer: str) -> Iterator[dict[str, Any]]:
    """Yield the turns with an answer between a tool's result and the user's next message."""
    previous = None
    for turn in turns:
        if turn["role"] == "user" and previous == "tool":
            yield {"role": "assistant", "content": answer}
        previous = turn["role"]
        yield turn


def _named(message: dict[str, Any], rules: TurnRules) -> dict[str, Any]:
    if not _is_system(message):
        return message
    return message | {"role": rules.system if message["role"] == "system" else rules.developer}


def _joined(messages: Sequence[dict[str, Any]], *, role: str | None = None) -> dict[str, Any]:
    """Return one message of several; of the assistant's in a row, only the last can have calls."""
    first, last = messages[0], messages[-1]
    if len(messages) == 1:
        return first if role is None else first | {"role": role}
    joined: dict[str, Any] = {"role": role or first["role"]}
    for field in ("content", "reasoning_content", "thinking"):
        texts = [message[field] for message in messages if message.get(field)]
        if texts or field == "content":
            joined[field] = "\n\n".join(texts)
    if len({message.get("name") for message in messages}) == 1 and "name" in first:
        joined["name"] = first["name"]
    if "tool_calls" in last:
        joined["tool_calls"] = last["tool_calls"]
    return joined
