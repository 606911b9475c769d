"""Handlers of the endpoints for text and vectors, streamed and not; each is a class of `inferd.serving.endpoints`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferd.errors import ClientGoneError
from inferd.server.api_call import ApiCall, api_call
from inferd.server.errors import encoded_error
from inferd.server.rate_limit_headers import limit_headers
from inferd.server.streaming import EventStream, cancelled_on_disconnect, failure_of
from inferd.serving.completion import Admission, AnswerWriter, Completion
from inferd.serving.endpoints.endpoint import Call, Endpoint
from inferd.usage import Usage

MAX_TOKENS_HEADER = "inferd-max-tokens"
METRIC_PREFIXES = ("inferd-", "fireworks-")
STATUS_CLIENT_CLOSED = 499
"""Status for a client that has gone, which is nginx's."""


def generation_route(endpoint: type[Endpoint], path: str | None = None) -> Route:
    """Return the route of an endpoint, whose handler has the endpoint's name.

    Args:
        path: another path under which clients look for it.
    """

    async def handle(request: Request) -> Response:
        return await _answer(request, endpoint)

    handle.__name__ = endpoint.name
    return Route(path or endpoint.path, handle, methods=["POST"])


async def _answer(request: Request, kind: type[Endpoint]) -> Response:
    """Answer a call. Refusals name the caller's own fields and come as JSON before anything is streamed; a later
    failure is an event."""
    kind.check_headers(request.headers)
    async with api_call(request, may_lack_key=True) as api:
        endpoint = await api.parse(kind.parse)
        with endpoint.names.restored():
            if endpoint.is_empty:
                return _empty(api, endpoint)
            call, completion = api.begin(endpoint)
    return await answer_call(request, call, completion)


async def answer_call(request: Request, call: Call, completion: Completion) -> Response:
    """Return the answer of a call that was accepted, as a whole or as a stream."""
    endpoint = call.endpoint
    async with cancelled_on_disconnect(completion, request):
        with endpoint.names.restored():
            admission = await completion.admitted()
        writer = endpoint.answer(call, admission, streamed=endpoint.streamed)
        if not endpoint.streamed:
            return await _whole(request, completion, writer, admission)

    def on_failure(error: Exception) -> Iterable[bytes]:
        if isinstance(error, ClientGoneError):
            return ()
        failure = failure_of(completion, error)
        return writer.fail(failure, *encoded_error(failure))

    headers = answer_headers(request, admission)
    return EventStream(
        completion.written(writer),
        on_failure,
        completion.cancel,
        headers,
        media_type=endpoint.media_type,
        ping=endpoint.ping,
    )


def _empty(api: ApiCall, endpoint: Endpoint) -> Response:
    """Answer a call that generates nothing. It counts as a request, and is not billed. Raises OverloadedError while the
    model is not ready."""
    body = endpoint.empty_answer(api.ready_deployment(endpoint.model).name)
    api.ticket.settle(Usage())
    return Response(body, headers=limit_headers(api.request), media_type="application/json")


async def _whole(request: Request, completion: Completion, writer: AnswerWriter, admission: Admission) -> Response:
    try:
        async for _ in completion.written(writer):
            raise AssertionError("a whole answer has no events")
    except ClientGoneError:
        return Response(status_code=STATUS_CLIENT_CLOSED)
    body = await writer.body()
    headers = metric_headers(writer.metrics) | answer_headers(request, admission)
    return Response(body, headers=headers, media_type="application/json")


def metric_headers(metrics: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of an answer's performance metrics."""
    return {prefix + name: value for prefix in METRIC_PREFIXES for name, value in metrics.items()}


def answer_headers(request: Request, admission: Admission) -> dict[str, str]:
    """Return what every answer says of limits."""
    clamped = admission.clamped_max_tokens
    return ({} if clamped is None else {MAX_TOKENS_HEADER: str(clamped)}) | limit_headers(request)
