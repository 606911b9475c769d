"""The turns of a conversation, arranged as a strict chat template takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SYSTEM_ROLES = ("system", "developer")


@dataclass(frozen=True, slots=True)
class TurnRules:
    """Which conversations a template takes as they are, every message written.

    Attributes:
        system: the role that it takes for a system message at the front; None: no such message.
        developer: the same, for the role `developer`.
        many_systems: several of them at the front.
        late_system: one anywhere else.
        system_without_question: one at the front of a conversation whose last message is not the user's.
        many_users: two messages of the user in a row.
        many_assistants: two of the assistant.
        assistant_first: an assistant's message before the first of the user.
        no_user: no message of the user at all.
        answer_after_result: the assistant's message that has to stand between a tool's result and what the user says
            next; None: none has to.
        text_with_calls: one of the assistant that has both.
        needs_system: only conversations that begin with a system message.
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
    """The messages, changed where the template does not take them, and only there. No text of them is lost.

    A system message that the template does not take where it stands becomes part of the user's message behind it, else
    of the one before it, else a message of the user.
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
    """Puts texts at the end of the last message, if it is the user's, else into a new one."""
    if turns and turns[-1]["role"] == "user":
        turns[-1] = _joined([turns[-1], *texts])
    else:
        turns.append(_joined(texts, role="user"))


def _merged(turns: Iterable[dict[str, Any]], rules: TurnRules) -> Iterator[dict[str, Any]]:
    """Messages in a row of one role as one message, for the roles whose messages have to alternate."""
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
    """With an answer between a tool's result and what the user says next."""
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
    """One message of several; of a row of the assistant's, only the last can have calls."""
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
