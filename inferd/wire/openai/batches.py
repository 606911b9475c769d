"""`/v1/files` and `/v1/batches`: bodies, objects, and the lines of input, output and error files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from inferd.wire.errors import invalid, shorten
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import convert, decode
from inferd.wire.openai.request_fields import (
    MAX_METADATA,
    MAX_METADATA_KEY_CHARACTERS,
    MAX_METADATA_VALUE_CHARACTERS,
)

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
COMPLETION_WINDOW = "24h"
PURPOSE = "batch"
"""The only purpose of uploaded files."""
EXPIRES_AFTER_S = (3_600, 2_592_000)
"""Least and most: an hour and 30 days."""
MAX_CUSTOM_ID_CHARACTERS = 512


Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]


class UploadForm(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename={"anchor": "expires_after[anchor]", "expires_after_s": "expires_after[seconds]"},
):
    """Form of `POST /v1/files`. `file` is the file's name: its content is written to disk while it arrives."""

    file: Annotated[str, msgspec.Meta(extra_json_schema={"contentMediaType": "application/octet-stream"})]
    purpose: Annotated[str, msgspec.Meta(extra_json_schema={"enum": (PURPOSE,)})]
    anchor: Annotated[str | None, msgspec.Meta(extra_json_schema={"enum": ("created_at",)})] = None
    expires_after_s: int | None = None


def parse_upload_form(fields: Mapping[str, str], filename: str | None) -> UploadForm:
    """Return the checked form. Raises InvalidRequestError."""
    form = convert({**fields, **({} if filename is None else {"file": filename})}, UploadForm)
    if form.purpose != PURPOSE:
        raise invalid("purpose", f"'purpose' must be '{PURPOSE}', got '{shorten(form.purpose)}'.")
    seconds = form.expires_after_s
    if form.anchor not in (None, "created_at") or (form.anchor is None) != (seconds is None):
        raise invalid("expires_after[anchor]", "'expires_after[anchor]' must be 'created_at', beside the seconds.")
    if seconds is not None:
        _check_expiry(seconds, "expires_after[seconds]")
    return form


def _check_expiry(seconds: int, param: str) -> None:
    least, most = EXPIRES_AFTER_S
    if not least <= seconds <= most:
        raise invalid(param, f"'{param}' must lie between {least} and {most}, got {seconds}.")


class FileObject(msgspec.Struct, frozen=True, kw_only=True):
    """A file; times are Unix seconds."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class FileDeleted(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class LineError(msgspec.Struct, frozen=True, kw_only=True):
    """Fault of a line of an input file, counted from 1, or of the whole file."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class BatchErrors(msgspec.Struct, frozen=True):
    data: list[LineError]
    object: Literal["list"] = "list"


class RequestCounts(msgspec.Struct, frozen=True):
    total: int
    completed: int
    failed: int


class CachedTokens(msgspec.Struct, frozen=True):
    cached_tokens: int


class ReasoningTokens(msgspec.Struct, frozen=True):
    reasoning_tokens: int


class BatchUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Usage of all answers of an ended batch; `cost` is USD with 9 places."""

    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int
    cost: str


class BatchObject(msgspec.Struct, frozen=True, kw_only=True):
    """A batch; times are Unix seconds."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str = COMPLETION_WINDOW
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None
    usage: BatchUsage | None = None


class FileList(msgspec.Struct, frozen=True, kw_only=True):
    """Page of files; `after=last_id` asks for the next."""

    object: Literal["list"] = "list"
    data: Sequence[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchList(msgspec.Struct, frozen=True, kw_only=True):
    """Page of batches; `after=last_id` asks for the next."""

    object: Literal["list"] = "list"
    data: Sequence[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


def file_list(files: Sequence[FileObject], *, has_more: bool) -> FileList:
    first_id, last_id = _ends(files)
    return FileList(data=files, first_id=first_id, last_id=last_id, has_more=has_more)


def batch_list(batches: Sequence[BatchObject], *, has_more: bool) -> BatchList:
    first_id, last_id = _ends(batches)
    return BatchList(data=batches, first_id=first_id, last_id=last_id, has_more=has_more)


def _ends(items: Sequence[FileObject] | Sequence[BatchObject]) -> tuple[str, str] | tuple[None, None]:
    return (items[0].id, items[-1].id) if items else (None, None)


class ExpiresAfter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lifetime of files, from their creation on."""

    anchor: Literal["created_at"]
    seconds: int


class CreateBatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/batches`."""

    input_file_id: str
    endpoint: Annotated[str, msgspec.Meta(extra_json_schema={"enum": ENDPOINTS})]
    completion_window: Annotated[str, msgspec.Meta(extra_json_schema={"enum": (COMPLETION_WINDOW,)})]
    metadata: dict[str, str] | None = None
    output_expires_after: ExpiresAfter | None = None

    @property
    def output_kept_ms(self) -> int | None:
        return None if self.output_expires_after is None else self.output_expires_after.seconds * 1000


_CREATE = msgspec.json.Decoder(CreateBatch)


def parse_create_batch(body: bytes) -> CreateBatch:
    """Return the checked body. Raises InvalidRequestError."""
    wanted = decode(body, _CREATE)
    if wanted.endpoint not in ENDPOINTS:
        raise invalid(
            "endpoint", f"'endpoint' must be one of {', '.join(ENDPOINTS)}, got '{shorten(wanted.endpoint)}'."
        )
    if wanted.completion_window != COMPLETION_WINDOW:
        raise invalid(
            "completion_window",
            f"'completion_window' must be '{COMPLETION_WINDOW}', got '{shorten(wanted.completion_window)}'.",
        )
    if wanted.output_expires_after is not None:
        _check_expiry(wanted.output_expires_after.seconds, "output_expires_after.seconds")
    metadata = wanted.metadata or {}
    if len(metadata) > MAX_METADATA:
        raise invalid("metadata", f"'metadata' may hold at most {MAX_METADATA} pairs, got {len(metadata)}.")
    for key, value in metadata.items():
        if len(key) > MAX_METADATA_KEY_CHARACTERS or len(value) > MAX_METADATA_VALUE_CHARACTERS:
            raise invalid(
                "metadata",
                f"'metadata' holds a key of {len(key)} and a value of {len(value)} characters; a key may "
                f"have at most {MAX_METADATA_KEY_CHARACTERS}, a value {MAX_METADATA_VALUE_CHARACTERS}.",
            )
    return wanted


class InputLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Line of an input file; `body` is the JSON of the request."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Identified(msgspec.Struct, frozen=True):
    custom_id: str


_LINE = msgspec.json.Decoder(InputLine)
_IDENTIFIED = msgspec.json.Decoder(_Identified)


def parse_line(line: bytes, endpoint: str, ignored: IgnoredFields | None = None) -> InputLine:
    """Return the line, with its body unchecked. Raises InvalidRequestError."""
    parsed = decode(line, _LINE, ignored)
    if not 0 < len(parsed.custom_id) <= MAX_CUSTOM_ID_CHARACTERS:
        raise invalid(
            "custom_id",
            f"'custom_id' must have 1 to {MAX_CUSTOM_ID_CHARACTERS} characters, got {len(parsed.custom_id)}.",
        )
    if parsed.method != "POST":
        raise invalid("method", f"'method' must be POST, got '{shorten(parsed.method)}'.")
    if parsed.url != endpoint:
        raise invalid("url", f"'url' must be the batch's endpoint {endpoint}, got '{shorten(parsed.url)}'.")
    return parsed


def custom_id_of(line: bytes) -> str | None:
    """Return the id of a line that may be faulty, cut to the allowed length; None if it has no id."""
    try:
        custom_id = _IDENTIFIED.decode(line).custom_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return custom_id[:MAX_CUSTOM_ID_CHARACTERS]


class LineResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """Response to a line; `inferd_ignored` is that header of a live answer, left out if it is empty."""

    status_code: int
    request_id: str
    body: msgspec.Raw
    inferd_ignored: str = ""


class OutputLine(msgspec.Struct, frozen=True, kw_only=True):
    """Line of an output or error file: it has a response if the request was started, else an error."""

    id: str
    custom_id: str | None
    response: LineResponse | None
    error: LineError | None


def encode_line(line: OutputLine) -> bytes:
    """Return the line as JSON, with its line end."""
    return msgspec.json.encode(line) + b"\n"


def with_usage(body: msgspec.Raw, known: dict[str, Any]) -> tuple[msgspec.Raw, int]:
    """Return an answer's body with the `known` fields of its usage, which are the ledger's, and its number of reasoning
    tokens. Fields of the usage that the ledger does not have stay; the rest of the body is not decoded."""
    answer = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    usage: dict[str, Any] = {**msgspec.json.decode(answer["usage"]), **known}
    answer["usage"] = msgspec.Raw(msgspec.json.encode(usage))
    details = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    return msgspec.Raw(msgspec.json.encode(answer)), details.get("reasoning_tokens", 0)
