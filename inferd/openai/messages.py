"""The messages of a chat request: what callers may send."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from inferd.errors import InvalidRequestError
from inferd.openai.call_history import ToolCall, check_call_history
from inferd.openai.decoding import shorten

_NAME = re.compile(r"[^\s<|\\/>]{1,64}")
"""OpenAI's own rule for a participant's name."""
PARTS_MAX = 16_384
"""Of a conversation: messages, parts of their content and calls together. Each costs some ten microseconds."""


class ContentPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One part of a message's content. Only `text` parts are accepted; the others are known so as to be named."""

    type: str
    text: str | None = None
    image_url: Any = None
    input_audio: Any = None
    file: Any = None
    refusal: Any = None
    prompt_cache_breakpoint: Any = None


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message. An answer of ours can be sent back as it is: the fields that it lacks come as null."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Any = None
    audio: Any = None
    annotations: Any = None

    def text(self) -> str:
        """The content as one string; parts are joined by line breaks, as llama-server and vLLM do."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text or "" for part in self.content or ())


def check_messages(messages: Sequence[Message]) -> None:
    """Raises InvalidRequestError for what is well-formed but cannot be served."""
    check_num_parts(
        "messages", (part for message in messages for part in (message, message.content, message.tool_calls))
    )
    if not messages:
        raise InvalidRequestError(
            "'messages' is empty: send at least one message.", param="messages", code="invalid_value"
        )
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]")
    check_call_history(messages)


def check_num_parts(field: str, contents: Iterable[object]) -> None:
    """`contents`: of a conversation; lists among them count by their length, everything else not being text as one.
    Raises InvalidRequestError if that is more than PARTS_MAX."""
    n_parts = 0
    for content in contents:
        n_parts += len(content) if isinstance(content, list) else content is not None and not isinstance(content, str)
        if n_parts > PARTS_MAX:
            raise InvalidRequestError(
                f"'{field}' has too many parts: at most {PARTS_MAX} messages, parts of their content and calls "
                "together are read.",
                param=field,
                code="invalid_value",
            )


def _check_message(message: Message, path: str) -> None:
    if message.role == "function":
        raise _unsupported(f"{path}.role", "Messages of role 'function' are not supported: use tools and role 'tool'.")
    for field in ("function_call", "audio", "refusal", "annotations"):
        if getattr(message, field) not in (None, []):
            raise _unsupported(f"{path}.{field}", f"'{path}.{field}' is not supported.")
    if message.reasoning_content is not None and message.role != "assistant":
        raise InvalidRequestError(
            f"'{path}.reasoning_content' belongs to messages of the role 'assistant'.",
            param=f"{path}.reasoning_content",
            code="invalid_value",
        )
    if message.content is None and not message.tool_calls:
        raise InvalidRequestError(
            f"'{path}.content' is missing: send a string or an array of text parts.",
            param=f"{path}.content",
            code="missing_required_parameter",
        )
    if message.name is not None and not _NAME.fullmatch(message.name):
        raise InvalidRequestError(
            f"'{path}.name' must be 1 to 64 characters, without white space and < | \\ / >.",
            param=f"{path}.name",
            code="invalid_value",
        )
    if isinstance(message.content, list):
        for index, part in enumerate(message.content):
            _check_part(part, f"{path}.content[{index}]")
        if not message.content:
            raise InvalidRequestError(
                f"'{path}.content' is an empty array: send at least one text part, or a string.",
                param=f"{path}.content",
                code="invalid_value",
            )


def _check_part(part: ContentPart, path: str) -> None:
    if part.type != "text":
        raise InvalidRequestError(
            f"'{path}' is of type '{shorten(part.type)}'; only text parts are supported.",
            param=path,
            code="unsupported_content",
        )
    for field in ("image_url", "input_audio", "file", "refusal", "prompt_cache_breakpoint"):
        if getattr(part, field) is not None:
            raise _unsupported(f"{path}.{field}", f"'{path}.{field}' is not supported in a text part.")
    if part.text is None:
        raise InvalidRequestError(
            f"The field '{path}.text' is missing.", param=f"{path}.text", code="missing_required_parameter"
        )


def _unsupported(param: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param=param, code="unsupported_parameter")
