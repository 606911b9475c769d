"""Upload of one file as `multipart/form-data` (RFC 7578), written to disk as it arrives."""

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
"""Time from the end of the headers to the end of the form: 140 kB/s for the largest file."""
MAX_FILENAME_CHARACTERS = 256
_WRITE_BYTES = 2**20


@dataclass(slots=True)
class UploadedForm:
    """Form of an upload, without the content of its file.

    Attributes:
        fields: values of the fields other than the file.
        filename: the client's name for the file; None: there was no file.
    """

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    num_bytes: int = 0


def declared_bytes(request: Request) -> int:
    """Return the declared size of the form, MAX_FORM_BYTES without one. Raise RequestTooLargeError above that."""
    declared = request.headers.get("content-length", "")
    num_bytes = int(declared) if declared.isdecimal() else MAX_FORM_BYTES
    if num_bytes > MAX_FORM_BYTES:
        raise _too_large()
    return num_bytes


async def read_upload(request: Request, file: BinaryIO, written: Callable[[int], None]) -> UploadedForm:
    """Read a form, and write the content of its field `file` to `file` on a worker thread.

    Args:
        written: called with the number of bytes of each write; its exceptions end the upload.

    Raises:
        InvalidRequestError: the body is incomplete or no form with one file.
        RequestTooLargeError: the form is larger than MAX_FORM_BYTES, or its file than MAX_FILE_BYTES.
        RequestTimeoutError: the form did not arrive within UPLOAD_TIMEOUT_S.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or b"boundary" not in parameters:
        raise InvalidRequestError(
            "The body is no form; upload a file as multipart/form-data, with the fields 'purpose' and 'file'.",
            code="invalid_form",
        )
    form = _Form()
    try:
        parser = MultipartParser(parameters[b"boundary"], form.callbacks())
        num_bytes = 0
        async with asyncio.timeout(UPLOAD_TIMEOUT_S):
            async for chunk in request.stream():
                num_bytes += len(chunk)
                if num_bytes > MAX_FORM_BYTES:  # parts and bytes after them
                    raise _too_large()
                parser.write(chunk)
                if form.num_waiting >= _WRITE_BYTES:
                    written(await asyncio.to_thread(file.write, form.take()))
            parser.finalize()
            await asyncio.to_thread(file.write, form.take())
    except FormParserError as error:
        raise InvalidRequestError(
            f"The form cannot be parsed: {error}; send multipart/form-data (RFC 7578).", code="invalid_form"
        ) from error
    except TimeoutError as error:
        raise RequestTimeoutError(
            f"The file did not arrive within {UPLOAD_TIMEOUT_S:.0f} s; send a smaller file or send it faster."
        ) from error
    except ClientDisconnect as error:
        raise InvalidRequestError(
            "The request's body is incomplete; send all of it.", code="incomplete_body"
        ) from error
    if not form.is_whole:
        raise InvalidRequestError("The form is incomplete; send it with its final boundary.", code="invalid_form")
    return form.upload


def _too_large() -> RequestTooLargeError:
    return RequestTooLargeError(
        f"The file is larger than {MAX_FILE_BYTES // 1_000_000} MB, the most allowed; split it into several batches.",
        param="file",
    )


class _Form:
    """Handler of the parser's events: the form as far as it has been parsed."""

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
        """Return the callbacks by the parser's names of events."""
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
        """Return the bytes of the file that no earlier call has returned."""
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
                raise InvalidRequestError(
                    "The form has several fields 'file'; send one.", param="file", code="invalid_form"
                )
            filename = options.get(b"filename", b"").decode(errors="replace") or "file.jsonl"
            kept = "".join(character for character in filename if character.isprintable())
            self.upload.filename = kept[:MAX_FILENAME_CHARACTERS]

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
            message = f"The field '{name}' is longer than {MAX_FIELD_BYTES} bytes, the most allowed."
            raise InvalidRequestError(message, param=name, code="invalid_value")

    def _end_part(self) -> None:
        if not self._is_file:
            if len(self.upload.fields) >= MAX_FIELDS:
                raise InvalidRequestError(
                    f"The form has more than {MAX_FIELDS} fields; send 'purpose' and 'file'.", code="invalid_form"
                )
            self.upload.fields[self._name] = self._value.decode(errors="replace")

    def _end(self) -> None:
        self.is_whole = True
