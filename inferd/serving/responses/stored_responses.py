"""Responses of all teams that are stored: those under way, the files of those that have ended, and their expiry."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from inferd.errors import InvalidRequestError, NotFoundError, OverloadedError, SealedDataError
from inferd.ledger import LedgerClient
from inferd.ledger.alerts import record_event
from inferd.ledger.identity import Caller
from inferd.ledger.requests import settled_cost_nanousd
from inferd.money import format_usd
from inferd.serving.completion import Completion
from inferd.serving.endpoints.endpoint import Call
from inferd.serving.endpoints.responses import Responses
from inferd.serving.responses.response_run import ResponseRun
from inferd.serving.responses.response_store import (
    MAX_TEAM_BYTES,
    MAX_TEAM_RESPONSES,
    ResponseRecord,
    ResponseStore,
    request_id_of,
)
from inferd.wire.errors import shorten
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.responses.input_items import EarlierTurn, InputItem
from inferd.wire.openai.responses.requests import ResponsesRequest
from inferd.wire.openai.responses.stored import place_of_item

logger = logging.getLogger(__name__)

MAX_TURNS = 1_000
MAX_CONVERSATION_BYTES = 16 * 2**20
"""Twice the largest body: a conversation is read before its tokens are counted."""
CUT_OFF = "The server stopped while it worked on the response. You were not billed."
RETRY_AFTER_S = 60.0
REPLAY_S = 600.0
"""How long the events of a streamed response in the background can be read again after its end."""
MAX_REPLAY_BYTES = 64 * 2**20


class _Answer(msgspec.Struct, frozen=True):
    """Fields of a stored response that a conversation is continued by."""

    id: str
    output: list[InputItem]
    previous_response_id: str | None = None


_ANSWER = msgspec.json.Decoder(_Answer)
_INPUT = msgspec.json.Decoder(str | list[InputItem])


class _DamagedError(NotFoundError):
    """The file of a response was changed, or cannot be opened with the team's key."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns of a stored conversation.

    Attributes:
        root: id of its first response.
        turns: ids and turns, oldest first.
    """

    root: str | None = None
    turns: tuple[tuple[str, EarlierTurn], ...] = ()

    @property
    def earlier(self) -> list[EarlierTurn]:
        return [turn for _, turn in self.turns]


class StoredResponses:
    """Belongs to the event loop: `recover` before the first request, `stop` after the last.

    Args:
        clock_ms: wall clock that the ledger's rows are dated by.
        days: for how many days responses are kept; 0: none is stored.
    """

    def __init__(self, store: ResponseStore, ledger: LedgerClient, clock_ms: Callable[[], int], *, days: int) -> None:
        self.keeps = days > 0
        self._clock_ms = clock_ms
        self._store = store
        self._ledger = ledger
        self._tasks: set[asyncio.Task[None]] = set()
        # Runs in the background, and those that have ended and whose events can be read again, oldest end last.
        self._runs: dict[tuple[str, str], ResponseRun] = {}

    def stores(self, asked: ResponsesRequest, caller: Caller, ignored: IgnoredFields) -> bool:
        """Return whether the response is to be stored. Raises InvalidRequestError if it must be, and the team has no
        room; a response that is stored by default is not stored then."""
        if not asked.is_stored:
            return False
        if self._store.has_room(caller.team):
            return True
        full = (
            f"Your team has stored as many responses as it may ({MAX_TEAM_RESPONSES:,}, {MAX_TEAM_BYTES:,} bytes): "
            "delete some, or send 'store': false."
        )
        if asked.store or asked.background:
            raise InvalidRequestError(full, param="store", code="response_storage_full")
        ignored.add("store", f"cannot be done. {full}")
        return False

    async def conversation(self, caller: Caller, response_id: str | None) -> Conversation:
        """Return the conversation up to a response, its answer included; an empty one without an id.

        Raises:
            InvalidRequestError: a response of the conversation is not there, or has not ended.
        """
        if not response_id:
            return Conversation()
        run = self._runs.get((caller.team, response_id))
        if run is not None and not run.ended.is_set() and run.caller.project == caller.project:
            raise InvalidRequestError(
                f"Previous response with id '{shorten(response_id)}' is {run.response.status}; wait until it has "
                "ended.",
                param="previous_response_id",
                code="response_in_progress",
            )
        return await asyncio.to_thread(self._conversation, caller, response_id)

    async def resolved(self, caller: Caller, asked: ResponsesRequest) -> ResponsesRequest:
        """Return the request with the stored items in place of the references to them. Raises InvalidRequestError."""
        given = asked.input
        if isinstance(given, str) or all(item.type != "item_reference" for item in given):
            return asked
        items = await asyncio.to_thread(self._resolved, caller, given)
        return msgspec.structs.replace(asked, input=items)

    def run(self, endpoint: Responses, caller: Caller, root: str) -> ResponseRun:
        """Return a new run of a response that is to be stored."""
        return ResponseRun(endpoint, caller, root, self._store, self._record_end)

    async def start(self, run: ResponseRun, call: Call, completion: Completion) -> None:
        """Wait until a run is admitted, and have it followed. Raises what refuses it."""
        try:
            await run.begin(call, completion)
        except OSError as error:
            refusal = OverloadedError(f"The response cannot be stored: {error.strerror}.", retry_after_s=RETRY_AFTER_S)
            completion.cut(refusal)
            raise refusal from error
        if run.is_background:
            self._runs[run.caller.team, run.response.id] = run
        task = asyncio.create_task(self._follow(run), name=run.response.id)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def find(self, caller: Caller, response_id: str) -> bytes:
        """Return a response as JSON. Raises NotFoundError."""
        run = self._background_run(caller, response_id)
        if run is not None:
            return msgspec.json.encode(run.response)
        return bytes((await asyncio.to_thread(self._record, caller, response_id)).response)

    async def input_turns(self, caller: Caller, response_id: str) -> list[tuple[str, EarlierTurn]]:
        """Return ids and turns of the conversation up to a response, the last without its output. Raises
        NotFoundError; and InvalidRequestError as `conversation`."""
        run = self._background_run(caller, response_id)
        if run is not None:
            given, previous_id = run.given, run.response.previous_response_id
        else:
            record = await asyncio.to_thread(self._record, caller, response_id)
            given, previous_id = _INPUT.decode(record.input), _ANSWER.decode(record.response).previous_response_id
        earlier = await self.conversation(caller, previous_id)
        return [*earlier.turns, (response_id, EarlierTurn(given, []))]

    def replayed(self, caller: Caller, response_id: str) -> ResponseRun | None:
        """Return the run of a streamed response in the background, while its events can be read; else None."""
        run = self._background_run(caller, response_id)
        return None if run is None or run.log is None else run

    async def cancel(self, caller: Caller, response_id: str) -> bytes:
        """End a response in the background, and return it once it has ended, which it may have before. Raises
        NotFoundError; InvalidRequestError for a response that is not in the background."""
        run = self._background_run(caller, response_id)
        if run is not None:
            run.cancel()
            await run.ended.wait()
            return msgspec.json.encode(run.response)
        response = bytes((await asyncio.to_thread(self._record, caller, response_id)).response)
        if not msgspec.json.decode(response)["background"]:
            raise InvalidRequestError(
                "Cannot cancel a synchronous response: only a response in the background can be cancelled.",
                param="response_id",
                code="invalid_value",
            )
        return response

    async def delete(self, caller: Caller, response_id: str) -> None:
        """End a response if it is under way, and erase it, also if it was damaged. Raises NotFoundError."""
        run = self._background_run(caller, response_id)
        if run is not None:
            await run.delete()
            self._runs.pop((caller.team, response_id), None)
        else:
            with suppress(_DamagedError):
                await asyncio.to_thread(self._record, caller, response_id)
        was_there = await asyncio.to_thread(self._store.remove, caller.team, response_id)
        if run is None and not was_there:
            raise _not_found(response_id)

    async def recover(self) -> None:
        """Give each response whose end a crash has cut off the end that the ledger says."""
        for team, response_id, record in await asyncio.to_thread(lambda: list(self._store.open_responses())):
            ended = await self._recovered(response_id, record)
            if ended is None:
                await asyncio.to_thread(self._store.remove, team, response_id)
                continue
            if ended["background"]:
                await self._record_end(team, response_id, ended["status"])
            final = msgspec.structs.replace(record, response=msgspec.Raw(msgspec.json.encode(ended)))
            await asyncio.to_thread(self._store.publish, team, response_id, final)
            await asyncio.to_thread(self._store.erase_open, team, response_id)
            logger.info("%s of team %s is %s", response_id, team, ended["status"])

    async def stop(self) -> None:
        """Wait until all runs have ended, which the caller has brought about."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _follow(self, run: ResponseRun) -> None:
        await run.follow()
        key = run.caller.team, run.response.id
        if run.is_lasting:
            try:
                await asyncio.to_thread(self._store.erase_open, *key)
            except OSError as error:
                logger.warning("%s: its open file could not be erased, the next start does it: %s", key[1], error)
        if not run.is_background or not run.is_lasting:
            return
        if run.log is None:
            self._runs.pop(key, None)
            return
        asyncio.get_running_loop().call_later(REPLAY_S, self._runs.pop, key, None)
        ended = [each for each in self._runs.values() if each.ended.is_set() and each.log is not None]
        num_bytes = sum(each.log.num_bytes for each in ended if each.log is not None)
        for oldest in ended:
            if num_bytes <= MAX_REPLAY_BYTES or not oldest.is_lasting:
                break
            self._runs.pop((oldest.caller.team, oldest.response.id), None)
            num_bytes -= oldest.log.num_bytes if oldest.log is not None else 0

    async def _recovered(self, response_id: str, record: ResponseRecord) -> dict[str, Any] | None:
        """Return the response as it has ended; None if it has none to show: its client has not seen its end."""
        response: dict[str, Any] = msgspec.json.decode(record.response)
        request_id = request_id_of(response_id)
        cost_nanousd = await self._ledger.read(lambda conn: settled_cost_nanousd(conn, request_id))
        if cost_nanousd is not None:
            if response["usage"] is None:  # it was deleted while it ran
                return None
            response["usage"]["cost"] = format_usd(cost_nanousd)
            return response
        if not response["background"]:
            return None
        error = {"code": "server_error", "message": CUT_OFF}
        unbilled = {"status": "failed", "error": error, "completed_at": None, "incomplete_details": None}
        return response | unbilled | {"output": [], "usage": None}

    def _background_run(self, caller: Caller, response_id: str) -> ResponseRun | None:
        run = self._runs.get((caller.team, response_id))
        return run if run is not None and run.caller.project == caller.project else None

    def _record(self, caller: Caller, response_id: str) -> ResponseRecord:
        """Return the record of a response that has ended. Raises NotFoundError."""
        try:
            record = self._store.read(caller.team, response_id)
        except SealedDataError as error:
            logger.error("%s of team %s cannot be opened: %s", response_id, caller.team, error.message)
            raise _DamagedError(
                f"Response with id '{shorten(response_id)}' cannot be read: its file on the server was damaged."
            ) from error
        if record is None or record.project != caller.project:
            raise _not_found(response_id)
        return record

    def _conversation(self, caller: Caller, response_id: str) -> Conversation:
        turns: list[tuple[str, EarlierTurn]] = []
        next_id: str | None = response_id
        num_bytes, root = 0, response_id
        while next_id:
            try:
                record = self._record(caller, next_id)
            except NotFoundError as error:
                raise InvalidRequestError(
                    f"The previous response is missing: {error.message}",
                    param="previous_response_id",
                    code="previous_response_not_found",
                ) from error
            num_bytes += len(record.response) + len(record.input)
            answer = _ANSWER.decode(record.response)
            turns.append((next_id, EarlierTurn(_INPUT.decode(record.input), answer.output)))
            if len(turns) > MAX_TURNS or num_bytes > MAX_CONVERSATION_BYTES:
                raise InvalidRequestError(
                    f"The conversation up to '{shorten(response_id)}' has more than {MAX_TURNS:,} responses or "
                    f"{MAX_CONVERSATION_BYTES:,} bytes; begin a new one.",
                    param="previous_response_id",
                    code="invalid_value",
                )
            next_id, root = answer.previous_response_id, record.root
        return Conversation(root, tuple(reversed(turns)))

    def _resolved(self, caller: Caller, items: list[InputItem]) -> list[InputItem]:
        outputs: dict[str, list[InputItem]] = {}
        num_bytes, resolved = 0, list(items)
        for index, item in enumerate(items):
            if item.type != "item_reference":
                continue
            response_id, place = place_of_item(item.id or "") or ("", 0)
            if response_id not in outputs:
                try:
                    record = self._record(caller, response_id)
                except NotFoundError as error:
                    raise _no_item(index, item) from error
                num_bytes += len(record.response)
                if num_bytes > MAX_CONVERSATION_BYTES:
                    raise InvalidRequestError(
                        f"'input' refers to items of more than {MAX_CONVERSATION_BYTES:,} bytes of responses; begin a "
                        "new conversation.",
                        param="input",
                        code="invalid_value",
                    )
                outputs[response_id] = _ANSWER.decode(record.response).output
            output = outputs[response_id]
            if place >= len(output) or output[place].id != item.id:
                raise _no_item(index, item)
            resolved[index] = output[place]
        return resolved

    async def _record_end(self, team: str, response_id: str, status: str) -> None:
        """Record the end of a response in the background for the operator's webhooks."""
        now_ms = self._clock_ms()
        await self._ledger.change(
            lambda conn: record_event(conn, f"response.{status}", team, response_id, now_ms=now_ms)
        )


def _no_item(index: int, item: InputItem) -> InvalidRequestError:
    return InvalidRequestError(
        f"'input[{index}]': item with id '{shorten(item.id or '')}' not found. Items of responses with 'store': false "
        "are not kept: send the item itself.",
        param=f"input[{index}]",
        code="item_not_found",
    )


def _not_found(response_id: str) -> NotFoundError:
    return NotFoundError(f"Response with id '{shorten(response_id)}' not found.")
