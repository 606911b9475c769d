"""Stored responses on the wire: their input items as a list, and what tells that one was deleted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from inferd.errors import InvalidRequestError
from inferd.wire.errors import shorten
from inferd.wire.openai.responses.input_items import EarlierTurn, InputItem, items_of
from inferd.wire.openai.responses.writer import ID_PREFIX

_ITEM_PREFIXES = {"function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
_OUTPUT_ITEM_ID = re.compile(r"(?:msg|rs|fc)_(?P<suffix>[0-9a-f]{1,64})_(?P<index>[0-9]{1,6})")


class ResponseDeleted(msgspec.Struct, frozen=True):
    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class InputItemList(msgspec.Struct, frozen=True, kw_only=True):
    """Page of the items that the model was given, those of earlier turns of the conversation too."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


def input_item_list(
    turns: Sequence[tuple[str, EarlierTurn]], *, after: str | None, limit: int, descending: bool
) -> InputItemList:
    """Return a page of the input of a response.

    Args:
        turns: ids and turns of its conversation, oldest first; the last is its own, without its output.
        after: id of the item before the page; None: the first page.

    Raises:
        InvalidRequestError: there is no item `after`.
    """
    items = [item for response_id, turn in turns for item in _items(response_id, turn)]
    if descending:
        items.reverse()
    if after is not None:
        place = next((index for index, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            raise InvalidRequestError(
                f"The query parameter 'after' is wrong: the response has no input item '{shorten(after)}'.",
                param="after",
                code="invalid_value",
            )
        items = items[place + 1 :]
    page = items[:limit]
    ids = [item["id"] for item in page]
    return InputItemList(
        data=page,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
        has_more=len(items) > limit,
    )


def place_of_item(item_id: str) -> tuple[str, int] | None:
    """Return the id of the response that has an item in its output, and the item's place there; None if no response of
    this server can have it."""
    found = _OUTPUT_ITEM_ID.fullmatch(item_id)
    return None if found is None else (ID_PREFIX + found["suffix"], int(found["index"]))


def _items(response_id: str, turn: EarlierTurn) -> list[dict[str, Any]]:
    given = [_shown(item, response_id, index) for index, item in enumerate(items_of(turn.input))]
    return given + [msgspec.to_builtins(item) for item in turn.output]


def _shown(item: InputItem, response_id: str, index: int) -> dict[str, Any]:
    """Return an item of a request as OpenAI's API shows it: with id, status and type, its text as parts."""
    shown: dict[str, Any] = {"type": item.type, **msgspec.to_builtins(item)}
    prefix = _ITEM_PREFIXES.get(item.type, "msg")
    shown.setdefault("id", f"{prefix}_{response_id.removeprefix(ID_PREFIX)}_i{index}")
    shown.setdefault("status", "completed")
    if isinstance(item.content, str):
        kind = "output_text" if item.role == "assistant" else "input_text"
        shown["content"] = [{"type": kind, "text": item.content}]
    return shown
