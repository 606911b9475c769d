"""`multipart/form-data` with one file, which goes to the disk as it comes (RFC 7578)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from inferd.errors import InvalidRequestError, RequestTimeoutError, RequestTooLargeError
from inferd.wire.errors import shorten

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_FILE_BYTES = 200 * 1000 * 1000
MAX_FIELD_BYTES = 1024
MAX_FIELDS = 16
MAX_FORM_BYTES = MAX_FILE_BYTES + 64 * 1024
UPLOAD_TIMEOUT_S = 1500.0
"""From the end of the headers: 140 kB/s for the largest file."""
FILENAME_CHARACTERS_MAX = 256
_WRITE_BYTES = 2**20


@dataclass(slots=True)
class UploadedForm:
    """Attributes:
    fields: the form's values that are no file.
    filename: as the client called it; None: there was no file.
    """

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    num_bytes: int = 0


def declared_bytes(request: Request) -> int:
    """Return the size of the form, or the largest that there may be. Raises RequestTooLargeError."""
    declared = request.headers.get("content-length", "")
    num_bytes = int(declared) if declared.isdecimal() else MAX_FORM_BYTES
    if num_bytes > MAX_FORM_BYTES:
        raise _too_large()
    return num_bytes


async def read_upload(request: Request, file: BinaryIO, written: Callable[[int], None]) -> UploadedForm:
    """The form's fields; its field `file` is written to `file`, from a worker thread, and `written` is called with the
    bytes of each write.

    Raises InvalidRequestError: it is no such form; RequestTooLargeError, RequestTimeoutError, what `written` raises.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or b"boundary" not in parameters:
        raise InvalidRequestError(
            "Upload a file as multipart/form-data, with the fields 'purpose' and 'file'.", code="invalid_form"
        )
    form = _Form()
    try:
        parser = MultipartParser(parameters[b"boundary"], form.callbacks())
        num_bytes = 0
        async with asyncio.timeout(UPLOAD_TIMEOUT_S):
            async for chunk in request.stream():
                num_bytes += len(chunk)
                if num_bytes > MAX_FORM_BYTES:  # of whatever: parts, or what follows them
                    raise _too_large()
                parser.write(chunk)
                if form.num_waiting >= _WRITE_BYTES:
                    written(await asyncio.to_thread(file.write, form.take()))
            parser.finalize()
            await asyncio.to_thread(file.write, form.take())
    except FormParserError as error:
        raise InvalidRequestError(f"The form cannot be read: {error}.", code="invalid_form") from error
    except TimeoutError as error:
        raise RequestTimeoutError(f"The file did not come within {UPLOAD_TIMEOUT_S:.0f} s.") from error
    except ClientDisconnect as error:
        raise InvalidRequestError("The request's body was cut off.", code="incomplete_body") from error
    if not form.is_whole:
        raise InvalidRequestError("The form has no end: its body was cut off.", code="invalid_form")
    return form.upload


def _too_large() -> RequestTooLargeError:
    return RequestTooLargeError(f"A file for batches has at most {MAX_FILE_BYTES // 1_000_000} MB.", param="file")


class _Form:
    """What the parser has found so far."""

    def __init__(self) -> None:
        self.upload = UploadedForm()
        self.is_whole = False
        self._waiting: list[bytes] = []
        self.num_waiting = 0
        self._name = ""
        self._is_file = False
        self._value = b""
        self._header: tuple[bytes, bytes] = (b"", b"")
        self._disposition = b""

    def callbacks(self) -> MultipartCallbacks:
        """By the parser's names of events."""
        return {
            "on_part_begin": self._begin_part,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_end": self._end,
        }

    def take(self) -> bytes:
        """The file's bytes that were not taken before."""
        data, self._waiting, self.num_waiting = b"".join(self._waiting), [], 0
        return data

    def _begin_part(self) -> None:
        self._value, self._disposition = b"", b""

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0] + data[start:end], self._header[1])

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0], self._header[1] + data[start:end])

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = (b"", b"")

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode(errors="replace")
        self._is_file = self._name == "file"
        if self._is_file:
            if self.upload.filename is not None:
                raise InvalidRequestError("The form has more than one 'file'.", param="file", code="invalid_form")
            filename = options.get(b"filename", b"").decode(errors="replace") or "file.jsonl"
            kept = "".join(character for character in filename if character.isprintable())
            self.upload.filename = kept[:FILENAME_CHARACTERS_MAX]

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.upload.num_bytes += end - start
            if self.upload.num_bytes > MAX_FILE_BYTES:
                raise _too_large()
            self._waiting.append(data[start:end])
            self.num_waiting += end - start
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            name = shorten(self._name)
            raise InvalidRequestError(f"The field '{name}' is too long.", param=name, code="invalid_value")

    def _end_part(self) -> None:
        if not self._is_file:
            if len(self.upload.fields) >= MAX_FIELDS:
                raise InvalidRequestError("The form has too many fields.", code="invalid_form")
            self.upload.fields[self._name] = self._value.decode(errors="replace")

    def _end(self) -> None:
        self.is_whole = True
