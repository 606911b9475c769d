"""`/v1/files`: what batches read and write. A file is seen by its team's keys in its project."""

from __future__ import annotations

import asyncio

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from inferd.errors import InvalidRequestError, NotFoundError, OverloadedError
from inferd.ledger import batch_operations as operations
from inferd.ledger.batch_records import FileRecord, find_file
from inferd.ledger.keys import Caller
from inferd.openai.batches import FileDeleted, FileObject, file_list, parse_upload_form
from inferd.server.auth import authenticate_request, require_scope
from inferd.server.query import Query
from inferd.server.services import Services, services_of
from inferd.server.upload import read_upload
from inferd.serving.clock import wall_clock_ms

RETRY_AFTER_S = 60.0
LIST_LIMIT = 10_000


async def create_file(request: Request) -> Response:
    """Stores an upload."""
    services, caller = caller_of(request)
    services.completions.check_space()
    team, project = caller.team, caller.project
    await services.ledger.read(lambda conn: operations.check_room(conn, team, 0))
    file_id = operations.new_file_id()
    file = await asyncio.to_thread(services.files.begin, file_id)
    try:
        upload = await read_upload(request, file)
        form = parse_upload_form(upload.fields, upload.filename)
        if upload.num_bytes == 0:
            raise InvalidRequestError("The file is empty.", param="file", code="empty_file")
        num_bytes = await asyncio.to_thread(services.files.finish, file_id, file)
    except OSError as error:
        services.files.give_up(file_id, file)
        raise OverloadedError(f"The file cannot be stored: {error.strerror}.", retry_after_s=RETRY_AFTER_S) from error
    except BaseException:
        services.files.give_up(file_id, file)
        raise
    try:
        record = await services.ledger.change(
            lambda conn: operations.create_file(
                conn,
                team,
                project,
                file_id,
                user=caller.user,
                key_id=caller.key_id,
                filename=form.file,
                num_bytes=num_bytes,
                kept_ms=None if form.expires_after_s is None else form.expires_after_s * 1000,
                actor=f"key:{caller.key_id}",
                now_ms=wall_clock_ms(),
            )
        )
    except BaseException:
        services.files.remove(file_id)
        raise
    return answer(file_object(record))


async def list_files(request: Request) -> Response:
    services, caller = caller_of(request)
    query = Query(request)
    purpose, order = query.text("purpose"), query.choice("order", ("asc", "desc"))
    after, limit = query.text("after"), query.integer("limit", 1, LIST_LIMIT) or LIST_LIMIT
    query.finish()
    files = await services.ledger.read(
        lambda conn: operations.list_files(
            conn,
            caller.team,
            caller.project,
            purpose=purpose,
            after=after,
            descending=order != "asc",
            limit=limit + 1,
        )
    )
    return answer(file_list([file_object(file) for file in files[:limit]], has_more=len(files) > limit))


async def get_file(request: Request) -> Response:
    return answer(file_object(await _file(request)))


async def get_content(request: Request) -> Response:
    """The file itself."""
    services = services_of(request)
    file = await _file(request)
    path = services.files.path(file.file_id)
    if not path.exists():  # restored from a backup, which has no files
        raise NotFoundError(f"what the file {file.file_id!r} held is not on this server any more")
    return FileResponse(path, media_type="application/jsonl")


async def delete_file(request: Request) -> Response:
    services, caller = caller_of(request)
    file_id = request.path_params["file_id"]
    await services.ledger.change(
        lambda conn: operations.delete_file(
            conn, caller.team, caller.project, file_id, actor=f"key:{caller.key_id}", now_ms=wall_clock_ms()
        )
    )
    await services.batches.forget([file_id])
    return answer(FileDeleted(id=file_id))


def caller_of(request: Request) -> tuple[Services, Caller]:
    """Raises AuthenticationError, PermissionDeniedError."""
    services = services_of(request)
    caller = authenticate_request(request, services.authenticator)
    require_scope(caller, "inference")
    return services, caller


def answer(value: object) -> Response:
    """200 with JSON."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def file_object(file: FileRecord) -> FileObject:
    return FileObject(
        id=file.file_id,
        bytes=file.num_bytes,
        created_at=file.created_at_ms // 1000,
        expires_at=file.expires_at_ms // 1000,
        filename=file.filename,
        purpose=file.purpose,
    )


async def _file(request: Request) -> FileRecord:
    services, caller = caller_of(request)
    file_id = request.path_params["file_id"]
    return await services.ledger.read(lambda conn: find_file(conn, file_id, caller.team, caller.project))
