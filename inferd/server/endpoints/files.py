"""`/v1/files`: input and output of batches. The keys of a file's team and project see the file."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from inferd.errors import InferdError, InvalidRequestError, NotFoundError, OverloadedError
from inferd.instants import wall_clock_ms
from inferd.ledger import operations
from inferd.ledger.batches import FileRecord, find_file
from inferd.ledger.identity import Caller
from inferd.server.api_call import rate_limited
from inferd.server.auth import authenticate_request, require_scope
from inferd.server.query import Query
from inferd.server.rate_limit_headers import limit_headers
from inferd.server.services import Services, services_of
from inferd.server.transport.upload import declared_bytes, read_upload
from inferd.serving.file_store import Upload
from inferd.usage import Usage
from inferd.wire.openai.batches import FileDeleted, FileObject, UploadForm, file_list, parse_upload_form

RETRY_AFTER_S = 60.0
LIST_LIMIT = 10_000
SPACE_CHECK_BYTES = 16 * 2**20


async def create_file(request: Request) -> Response:
    """Store an upload, which counts toward the team's requests per minute."""
    services = services_of(request)
    async with rate_limited(request) as (caller, ticket):
        with services.files.upload(caller.team, declared_bytes(request)) as upload:
            promised_bytes = services.files.promised_bytes(caller.team)
            await services.ledger.read(lambda conn: operations.check_room(conn, caller.team, promised_bytes))
            stored = await store_upload(request, services, upload)
            try:
                record = await services.ledger.change(
                    lambda conn: operations.create_file(
                        conn,
                        caller,
                        operations.NewFile(stored.file_id, stored.form.file, stored.num_bytes, stored.kept_ms),
                        by=operations.Author(f"key:{caller.key_id}", wall_clock_ms()),
                    )
                )
            except InferdError:
                services.files.remove(stored.file_id)
                raise
        ticket.settle(Usage())
    return answer(file_object(record), limit_headers(request))


@dataclass(frozen=True, slots=True)
class _Stored:
    """File on the disk that the ledger does not list yet."""

    file_id: str
    form: UploadForm
    num_bytes: int

    @property
    def kept_ms(self) -> int | None:
        seconds = self.form.expires_after_s
        return None if seconds is None else seconds * 1000


async def store_upload(request: Request, services: Services, upload: Upload) -> _Stored:
    """Write an upload to the disk, and return its form. Remove it again, and raise InvalidRequestError or
    OverloadedError, if it is invalid or does not fit."""
    files, file_id = services.files, operations.new_file_id()
    file = await asyncio.to_thread(files.begin, file_id)
    checked_at = 0

    def written(num_bytes: int) -> None:
        """End this upload if the disk fills up for another reason, so that room remains for the ledger."""
        nonlocal checked_at
        upload.num_written += num_bytes
        if upload.num_written - checked_at >= SPACE_CHECK_BYTES:
            checked_at = upload.num_written
            services.completions.check_space()

    try:
        read = await read_upload(request, file, written)
        form = parse_upload_form(read.fields, read.filename)
        if read.num_bytes == 0:
            raise InvalidRequestError("The file is empty; send at least one line.", param="file", code="empty_file")
        return _Stored(file_id, form, await asyncio.to_thread(files.finish, file_id, file))
    except OSError as error:
        files.give_up(file_id, file)
        raise OverloadedError(
            f"The file cannot be stored: {error.strerror}; try again later.", retry_after_s=RETRY_AFTER_S
        ) from error
    except BaseException:
        files.give_up(file_id, file)
        raise


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
            operations.FilePage(limit + 1, purpose=purpose, after=after, descending=order != "asc"),
        )
    )
    return answer(file_list([file_object(file) for file in files[:limit]], has_more=len(files) > limit))


async def get_file(request: Request) -> Response:
    return answer(file_object(await _file(request)))


async def get_content(request: Request) -> Response:
    """Answer with the content of a file."""
    services = services_of(request)
    file = await _file(request)
    path = services.files.path(file.file_id)
    if not path.exists():  # the ledger was restored from a backup, which has no files
        raise NotFoundError(f"the content of file {file.file_id!r} is no longer on this server; upload the file again")
    return FileResponse(path, media_type="application/jsonl")


async def delete_file(request: Request) -> Response:
    services, caller = caller_of(request)
    file_id = request.path_params["file_id"]
    await services.ledger.change(
        lambda conn: operations.delete_file(
            conn, caller.team, caller.project, file_id, by=operations.Author(f"key:{caller.key_id}", wall_clock_ms())
        )
    )
    await services.batches.forget([file_id])
    return answer(FileDeleted(id=file_id))


def caller_of(request: Request) -> tuple[Services, Caller]:
    """Return the caller of a request. Raise AuthenticationError; PermissionDeniedError without scope `inference`."""
    services = services_of(request)
    caller = authenticate_request(request, services.authenticator)
    require_scope(caller, "inference")
    return services, caller


def answer(value: object, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response of `value` as JSON."""
    return Response(msgspec.json.encode(value), headers=headers, media_type="application/json")


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
