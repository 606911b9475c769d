"""`/v1/responses`: OpenAI's Responses API. The keys of a stored response's team and project see the response."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from inferd.errors import ClientGoneError, InvalidRequestError
from inferd.ledger.identity import Caller
from inferd.server.api_call import SMALL_BODY_BYTES, ApiCall, api_call
from inferd.server.auth import has_key
from inferd.server.endpoints.files import answer, caller_of
from inferd.server.endpoints.generation import STATUS_CLIENT_CLOSED, answer_call, answer_headers, metric_headers
from inferd.server.errors import status_of
from inferd.server.query import Query
from inferd.server.rate_limit_headers import limit_headers
from inferd.server.services import services_of
from inferd.server.streaming import EventStream, cancelled_on_disconnect, failure_of
from inferd.serving.completion import Admission, Completion
from inferd.serving.endpoints.endpoint import Call
from inferd.serving.endpoints.responses import Responses
from inferd.serving.request_id import PREFIX
from inferd.serving.responses.response_run import ResponseRun
from inferd.serving.responses.stored_responses import Conversation, StoredResponses
from inferd.wire.openai.responses.requests import ResponsesRequest, read_responses_request
from inferd.wire.openai.responses.stored import ResponseDeleted, input_item_list
from inferd.wire.openai.responses.writer import ID_PREFIX

LIST_LIMIT, LIST_LIMIT_MAX = 20, 100


async def create_response(request: Request) -> Response:
    """Answer a call; store the answer if the server keeps responses and the caller does not decline."""
    stored = services_of(request).responses
    async with api_call(request, may_lack_key=True) as api:
        keeps = stored.keeps and has_key(request)
        asked = await api.parse(partial(read_responses_request, keeps=keeps))
        if keeps:
            asked = await stored.resolved(api.caller, asked)
        conversation = await stored.conversation(api.caller, asked.previous_response_id)
        response_id = ID_PREFIX + request.state.request_id.removeprefix(PREFIX)
        root = conversation.root or response_id
        endpoint = await _endpoint(api, asked, conversation, root if keeps else None)
        run = None
        if keeps and stored.stores(asked, api.caller, api.ignored):
            run = stored.run(endpoint, api.caller, root)
        with endpoint.names.restored():
            call, completion = api.begin(endpoint, run)
    if run is None:
        return await answer_call(request, call, completion)
    return await _answer_stored(request, run, call, completion)


async def _endpoint(api: ApiCall, asked: ResponsesRequest, conversation: Conversation, root: str | None) -> Responses:
    """Return the call. Messages of a long conversation are made on a worker thread."""
    make = partial(Responses.of, asked, api.ignored, conversation.earlier, root)
    if len(api.body) <= SMALL_BODY_BYTES and not conversation.turns:
        return make()
    return await asyncio.to_thread(make)


async def _answer_stored(request: Request, run: ResponseRun, call: Call, completion: Completion) -> Response:
    async with cancelled_on_disconnect(completion, request):
        with call.endpoint.names.restored():
            admission = await completion.admitted()
        await services_of(request).responses.start(run, call, completion)
        if run.log is None and not run.is_background:
            await run.ended.wait()
            return _whole(request, run, admission)
    if run.log is None:
        return answer(run.response, answer_headers(request, admission))
    return _stream(run, answer_headers(request, admission))


def _whole(request: Request, run: ResponseRun, admission: Admission) -> Response:
    if isinstance(run.error, ClientGoneError):
        return Response(status_code=STATUS_CLIENT_CLOSED)
    if run.error is not None:
        raise run.error
    return answer(run.response, metric_headers(run.metrics) | answer_headers(request, admission))


def _stream(run: ResponseRun, headers: dict[str, str], number: int = 0) -> EventStream:
    """Return the events of a run from `number` on. The reader of a run that is not in the background ends it by going
    away."""

    def on_failure(error: Exception) -> Iterable[bytes]:
        if isinstance(error, ClientGoneError):
            return ()
        failure = failure_of(run.completion, error)
        return run.failure_events(failure, status_of(failure)[0])

    return EventStream(run.events(number), on_failure, _ignore_end if run.is_background else run.cancel, headers)


def _ignore_end() -> None:
    """Let a run in the background go on."""


async def get_response(request: Request) -> Response:
    """Answer with a stored response, or with its events while they can be read."""
    stored, caller, response_id = _stored_of(request)
    query = Query(request)
    query.texts("include")
    is_streamed, after = query.flag("stream"), query.integer("starting_after")
    query.flag("include_obfuscation")
    query.finish()
    if not is_streamed:
        return Response(await stored.find(caller, response_id), media_type="application/json")
    run = stored.replayed(caller, response_id)
    if run is None:
        await stored.find(caller, response_id)
        raise InvalidRequestError(
            "The events of this response cannot be streamed: only those of a response with 'background' and 'stream' "
            "can, until ten minutes after its end. Leave out the query parameter 'stream'.",
            param="stream",
            code="unsupported_value",
        )
    return _stream(run, limit_headers(request), 0 if after is None else after + 1)


async def delete_response(request: Request) -> Response:
    """Erase a response; one that is under way is cancelled."""
    stored, caller, response_id = _stored_of(request)
    Query(request).finish()
    await stored.delete(caller, response_id)
    return answer(ResponseDeleted(id=response_id))


async def cancel_response(request: Request) -> Response:
    """Cancel a response in the background, and answer with it once it has ended."""
    stored, caller, response_id = _stored_of(request)
    return Response(await stored.cancel(caller, response_id), media_type="application/json")


async def list_input_items(request: Request) -> Response:
    """List the items that a response was made from, those of earlier turns too."""
    stored, caller, response_id = _stored_of(request)
    query = Query(request)
    query.texts("include")
    after, order = query.text("after"), query.choice("order", ("asc", "desc"))
    limit = query.integer("limit", 1, LIST_LIMIT_MAX) or LIST_LIMIT
    query.finish()
    turns = await stored.input_turns(caller, response_id)
    return answer(input_item_list(turns, after=after, limit=limit, descending=order != "asc"))


def _stored_of(request: Request) -> tuple[StoredResponses, Caller, str]:
    services, caller = caller_of(request)
    return services.responses, caller, request.path_params["response_id"]
