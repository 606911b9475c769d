"""Tool calls and their results in a conversation: what callers may send back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.openai.decoding import shorten
from inferd.openai.tools import check_name

if TYPE_CHECKING:
    from inferd.openai.messages import Message

CALL_ID_CHARACTERS_MAX = 128


class CalledFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`arguments` is the text of a JSON object, or empty."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call of an assistant's message. An `index`, as streamed calls have one, says nothing here."""

    id: str
    function: CalledFunction
    type: str = "function"
    index: int | None = None

    def arguments(self) -> dict[str, Any]:
        """Checked before; here they are an object."""
        value = json.loads(self.function.arguments or "{}")
        assert isinstance(value, dict), "check_call_history comes first"
        return value


def check_call_history(messages: Sequence[Message]) -> None:
    """Every call has one result, right after it, and every result a call.

    Raises:
        InvalidRequestError: that names the path of what is wrong.
    """
    open_ids: dict[str, str] = {}
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        if message.role == "tool":
            _check_result(message, path, open_ids)
            continue
        _check_answered(open_ids)
        if message.tool_call_id is not None:
            raise _invalid(f"{path}.tool_call_id", f"'{path}.tool_call_id' belongs to messages of the role 'tool'.")
        if message.tool_calls is None:
            continue
        if message.role != "assistant":
            raise _invalid(f"{path}.tool_calls", f"'{path}.tool_calls' belongs to messages of the role 'assistant'.")
        for number, call in enumerate(message.tool_calls):
            _check_call(call, f"{path}.tool_calls[{number}]")
            if call.id in open_ids:
                raise _invalid(f"{path}.tool_calls[{number}].id", f"Two calls have the id '{shorten(call.id)}'.")
            open_ids[call.id] = f"{path}.tool_calls[{number}]"
    _check_answered(open_ids)


def _check_call(call: ToolCall, path: str) -> None:
    if call.type != "function":
        raise InvalidRequestError(
            f"'{path}' is of type '{shorten(call.type)}'; only calls of type 'function' are supported.",
            param=f"{path}.type",
            code="unsupported_value",
        )
    if not 0 < len(call.id) <= CALL_ID_CHARACTERS_MAX:
        raise _invalid(f"{path}.id", f"'{path}.id' must have 1 to {CALL_ID_CHARACTERS_MAX} characters.")
    check_name(call.function.name, f"{path}.function.name")
    param = f"{path}.function.arguments"
    try:
        value = json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError) as error:
        raise _invalid(param, f"'{param}' is not valid JSON: {shorten(str(error))}.") from error
    if not isinstance(value, dict):
        raise _invalid(param, f"'{param}' must be the text of a JSON object.")


def _check_result(message: Message, path: str, open_ids: dict[str, str]) -> None:
    if message.tool_call_id is None:
        raise InvalidRequestError(
            f"The field '{path}.tool_call_id' is missing.",
            param=f"{path}.tool_call_id",
            code="missing_required_parameter",
        )
    if message.tool_calls:
        raise _invalid(f"{path}.tool_calls", f"'{path}.tool_calls' belongs to messages of the role 'assistant'.")
    if open_ids.pop(message.tool_call_id, None) is None:
        raise _invalid(
            f"{path}.tool_call_id",
            f"'{path}' answers the tool call '{shorten(message.tool_call_id)}', but the assistant's message before it "
            "has no such call, or it has been answered.",
        )


def _check_answered(open_ids: dict[str, str]) -> None:
    for call_id, path in open_ids.items():
        raise _invalid(
            path,
            f"The tool call '{shorten(call_id)}' has no result: the results of all calls must come right after them.",
        )


def _invalid(param: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param=param, code="invalid_value")
