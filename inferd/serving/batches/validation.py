"""The lines of an input file, checked before any of them is run; in a worker thread, a line at a time."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from inferd.deployments.deployment import Deployment
from inferd.deployments.router import Router
from inferd.errors import (
    ClientGoneError,
    GenerationError,
    InferdError,
    InvalidRequestError,
    PermissionDeniedError,
    RequestError,
)
from inferd.ledger.identity.keys import Caller
from inferd.price import ServiceTier
from inferd.serving.batches.input_file import MAX_LINE_BYTES, MAX_LINES, RawLine, read_lines
from inferd.serving.batches.line_attempts import LineAttempts
from inferd.serving.batches.line_body import LineBody, parse_body
from inferd.serving.batches.spool import Record, encode_record
from inferd.serving.endpoints.admission import check_capability, prepare, record_unheard
from inferd.tokenizer import Check
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.batches import LineError, custom_id_of, parse_line

logger = logging.getLogger(__name__)

MAX_EMBEDDING_INPUTS = 50_000
"""Of all lines of a batch together, as OpenAI's."""
MAX_ERRORS = 100
"""So many are shown in a batch's `errors`; all are in its error file."""
LINE_FAULT = "The server had an error while processing this line. You were not billed."
_SERVER_ERROR = "server_error"
_ID_BYTES = 16


@dataclass(slots=True)
class Validation:
    """What a file came to.

    Attributes:
        num_lines: that are not empty.
        tokens: prompt tokens of the valid ones; num_embedding_inputs: theirs, too.
        errors: the first ones.
        fatal: why none of it can be run.
    """

    num_lines: int = 0
    num_invalid: int = 0
    tokens: int = 0
    num_embedding_inputs: int = 0
    errors: list[LineError] = field(default_factory=list)
    fatal: LineError | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A line that can be run. `ignored`: what of it has no effect."""

    number: int
    custom_id: str
    body: LineBody
    deployment: Deployment
    ignored: IgnoredFields


def check_model(caller: Caller, line: Line) -> None:
    """Raises PermissionDeniedError unless the key may call it."""
    if not caller.may_use(line.deployment.name):
        raise PermissionDeniedError(
            f"The batch's API key may not call the model `{line.deployment.name}`.",
            code="model_not_allowed",
            param="model",
        )


class LineReader:
    """Lines of one batch as requests; every fault is an InferdError.

    Args:
        strict: refuse lines with a field that would be ignored.
    """

    def __init__(self, router: Router, endpoint: str, *, strict: bool = False) -> None:
        self._router = router
        self._endpoint = endpoint
        self._strict = strict

    def read(self, raw: RawLine) -> Line:
        """Raises InvalidRequestError, ModelNotFoundError."""
        if raw.is_too_long:
            raise InvalidRequestError(f"The line is longer than {MAX_LINE_BYTES:,} bytes.", code="line_too_long")
        ignored = IgnoredFields(strict=self._strict)
        parsed = parse_line(raw.text, self._endpoint, ignored)
        body = parse_body(self._endpoint, bytes(parsed.body), ignored)
        deployment = self._router.find(body.model)
        deployment.check_tier(ServiceTier.BATCH)
        record_unheard(body.request, deployment.replica, ignored, body.names)
        return Line(raw.number, parsed.custom_id, body, deployment, ignored)


def validate(
    path: Path,
    reader: LineReader,
    caller: Caller,
    spool: BinaryIO,
    attempts: LineAttempts,
    stopped: Callable[[], bool],
) -> Validation:
    """Reads the whole file; each line that cannot be run goes to `spool`. Half of its time it leaves to others: what it
    takes of the interpreter, answers under way do not have.

    Args:
        attempts: count each line, which may end the process.
        stopped: whether nobody wants to know any more.
    """

    def check() -> None:
        if stopped():
            raise ClientGoneError("The batch was stopped.")

    found = Validation()
    seen: set[bytes] = set()
    for raw in _at_most(read_lines(path), found):
        if stopped():
            break
        began_s, has_begun = time.thread_time(), False
        fault: LineError | None = None
        try:
            attempts.begin(raw.number)
            has_begun = True
            _validate_line(raw, reader, caller, found, seen, check)
        except InferdError as error:
            fault = line_error(error, raw.number)
        except Exception:  # a fault of ours at one line must not keep all the others waiting for ever
            logger.exception("line %d of %s cannot be checked", raw.number, path.name)
            fault = line_error(GenerationError(LINE_FAULT), raw.number)
        if has_begun:
            attempts.end(raw.number)
        if fault is not None:
            found.num_invalid += 1
            if len(found.errors) < MAX_ERRORS:
                found.errors.append(fault)
            spool.write(encode_record(Record(line=raw.number, custom_id=custom_id_of(raw.text), error=fault)))
        time.sleep(time.thread_time() - began_s)
    if found.num_embedding_inputs > MAX_EMBEDDING_INPUTS:
        found.fatal = LineError(
            code="too_many_inputs",
            message=f"The lines of a batch have at most {MAX_EMBEDDING_INPUTS:,} embedding inputs together.",
        )
    if found.fatal is None and found.num_lines == 0:
        found.fatal = LineError(code="empty_file", message="The input file has no lines.")
    elif found.fatal is None and found.num_invalid == found.num_lines:
        found.fatal = LineError(code="no_valid_line", message="No line of the input file can be run.")
    return found


def _validate_line(
    raw: RawLine, reader: LineReader, caller: Caller, found: Validation, seen: set[bytes], check: Check
) -> None:
    """Count a line that can be run in `found`. Raises InferdError.

    Args:
        seen: digests of the `custom_id`s of the lines before it.
        check: raises if the batch was stopped.
    """
    line = reader.read(raw)
    check_model(caller, line)
    digest = hashlib.blake2b(line.custom_id.encode(), digest_size=_ID_BYTES).digest()
    if digest in seen:
        raise InvalidRequestError(
            "Another line has this custom_id already.", param="custom_id", code="duplicate_custom_id"
        )
    seen.add(digest)
    with line.body.names.restored():
        check_capability(line.body.request, line.deployment)
        found.tokens += prepare(line.body.request, line.deployment, check=check).num_tokens
    found.num_embedding_inputs += line.body.num_embedding_inputs


def _at_most(lines: Iterator[RawLine], found: Validation) -> Iterator[RawLine]:
    for raw in lines:
        found.num_lines += 1
        if found.num_lines > MAX_LINES:
            found.fatal = LineError(code="too_many_lines", message=f"An input file has at most {MAX_LINES:,} lines.")
            return
        yield raw


def line_error(error: InferdError, number: int | None = None) -> LineError:
    code = error.code if isinstance(error, RequestError) else _SERVER_ERROR
    param = error.param if isinstance(error, RequestError) else None
    return LineError(code=code or "invalid_line", message=error.message, param=param, line=number)
