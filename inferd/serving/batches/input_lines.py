"""Lines of a batch's input file, one at a time: as bytes, and as calls of the batch's endpoint."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inferd.deployments.deployment import Deployment
from inferd.deployments.router import Router
from inferd.errors import InvalidRequestError, PermissionDeniedError
from inferd.ledger.identity import Caller
from inferd.price import ServiceTier
from inferd.serving.endpoints.chat import ChatCompletions
from inferd.serving.endpoints.embeddings import Embeddings
from inferd.serving.endpoints.endpoint import Endpoint
from inferd.serving.endpoints.responses import Responses
from inferd.serving.endpoints.text_completions import TextCompletions
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.batches import parse_line

MAX_LINE_BYTES = 8 * 2**20
"""The limit of the body of a live call."""

ENDPOINT_OF_PATH: dict[str, type[Endpoint]] = {
    endpoint.path: endpoint for endpoint in (ChatCompletions, TextCompletions, Embeddings, Responses)
}


@dataclass(frozen=True, slots=True)
class RawLine:
    """Attributes:
    number: from 1, empty lines included.
    text: without its end.
    """

    number: int
    text: bytes


def read_lines(path: Path, max_bytes: int = MAX_LINE_BYTES) -> Iterator[RawLine]:
    """Yield all lines that are not empty, without a byte order mark; never more than one is in memory. A line that is
    too long is cut off behind `max_bytes` + 1."""
    with path.open("rb") as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        number = 0
        while text := file.readline(max_bytes + 1):
            number += 1
            whole = text
            while not whole.endswith(b"\n") and (whole := file.readline(max_bytes)):
                pass
            if (stripped := text.rstrip(b"\r\n")) and stripped.strip():
                yield RawLine(number, stripped)


@dataclass(frozen=True, slots=True)
class Line:
    """Line that can be run. `ignored`: fields of it that have no effect."""

    number: int
    custom_id: str
    endpoint: Endpoint
    deployment: Deployment
    ignored: IgnoredFields

    def check_caller(self, caller: Caller) -> None:
        """Raise PermissionDeniedError unless the batch's key may call the model."""
        if not caller.may_use(self.deployment.name):
            raise PermissionDeniedError(
                f"The batch's API key may not call the model `{self.deployment.name}`.",
                code="model_not_allowed",
                param="model",
            )


class LineReader:
    """Reader of one batch's lines; every fault of a line is an InferdError.

    Args:
        endpoint: path of the batch's endpoint.
        strict: refuse lines with a field that would be ignored.
    """

    def __init__(self, router: Router, endpoint: str, *, strict: bool, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.max_line_bytes = max_line_bytes
        self._router = router
        self._path = endpoint
        self._strict = strict

    def lines(self, path: Path) -> Iterator[RawLine]:
        """Yield the lines of an input file."""
        return read_lines(path, self.max_line_bytes)

    def read(self, raw: RawLine) -> Line:
        """Return the call that a line asks for. Raises InvalidRequestError, as the endpoint would; and
        ModelNotFoundError."""
        if len(raw.text) > self.max_line_bytes:
            raise InvalidRequestError(f"The line is longer than {self.max_line_bytes:,} bytes.", code="line_too_long")
        ignored = IgnoredFields(strict=self._strict)
        parsed = parse_line(raw.text, self._path, ignored)
        endpoint = ENDPOINT_OF_PATH[self._path].parse(bytes(parsed.body), ignored)
        endpoint.check_line()
        deployment = self._router.find(endpoint.model)
        deployment.check_tier(ServiceTier.BATCH)
        endpoint.record_unheard(deployment.replica, ignored)
        return Line(raw.number, parsed.custom_id, endpoint, deployment, ignored)
