"""`POST /classify`: the body as a checked, typed request, and the answer, in vLLM's shape."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from inferd.wire.errors import invalid
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import decode
from inferd.wire.openai.embeddings import MAX_INPUTS, EmbeddingUsage
from inferd.wire.openai.request_fields import TextInput, check_model, check_tags, inputs_of


class ClassifyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Request as it came; `inputs` is valid once `parse_classify_request` has checked it."""

    model: str
    input: str | list[str]
    user: str | None = None

    def inputs(self) -> list[TextInput]:
        """Return the inputs, at least one; each has a label of its own."""
        return inputs_of("input", self.input if isinstance(self.input, str) else [*self.input])


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """Most probable label of one input, and the probabilities of all labels in their order."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class ClassifyResponse(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Classification]
    usage: EmbeddingUsage


_DECODER = msgspec.json.Decoder(ClassifyRequest)


def parse_classify_request(body: bytes, ignored: IgnoredFields | None = None) -> ClassifyRequest:
    """Decode and check the body of a request for labels.

    Args:
        ignored: record for fields without effect.

    Raises:
        InvalidRequestError: `param` is the field; checks that depend on the model come later.
    """
    request = decode(body, _DECODER, ignored or IgnoredFields())
    check_model(request.model)
    check_tags(request, ("user",))
    texts = [request.input] if isinstance(request.input, str) else request.input
    if len(texts) > MAX_INPUTS:
        raise invalid("input", f"'input' may hold at most {MAX_INPUTS} inputs, got {len(texts)}.")
    if not texts or not all(texts):
        raise invalid("input", "'input' is empty, or one of its texts is: send text.")
    return request


def classifications(labels: tuple[str, ...], probabilities: npt.NDArray[np.float64]) -> list[Classification]:
    """Return the label of each input; `probabilities` has shape (inputs, labels)."""
    return [
        Classification(index=index, label=labels[int(np.argmax(row))], probs=row.tolist(), num_classes=len(labels))
        for index, row in enumerate(probabilities)
    ]
