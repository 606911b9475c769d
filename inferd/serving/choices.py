"""The choices of one request: `n` sequences in the engine that continue one prompt.

The engine computes the prompt for the first of them; the others wait until it is there and copy it, as requests with a
common prefix always do. To the ledger and to the limits they are one request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from inferd.deployments.local_replica import LocalReplica
from inferd.engine.engine import OutputStream
from inferd.engine.messages import AddRequest, EmbedRequest, FinishReason, RequestOutput
from inferd.serving.completion import Completion, TextDelta, whole_reason
from inferd.usage import Usage, rounded_ms


@dataclass(frozen=True, slots=True)
class Ending:
    """How all choices ended, in their order.

    Attributes:
        usage: of the request, see `summed`.
        error: what happened to the first that failed, or that its constraint ended, for the operator.
        first_token_ns: when the first token of any came, on `time.monotonic_ns`; None if none did.
        stop_string: the one that ended the first choice, if one did.
        embeddings: of a request for them that has not failed, see RequestOutput.
    """

    finish_reasons: tuple[FinishReason, ...]
    usage: Usage
    error: str | None
    first_token_ns: int | None
    stop_string: str | None = None
    embeddings: npt.NDArray[np.float32] | None = None

    @property
    def finish_reason(self) -> FinishReason:
        """Of the request."""
        return whole_reason(self.finish_reasons)


class Choices:
    """Belongs to the event loop. Submit, then wait for the end, or withdraw; once each."""

    def __init__(self, replica: LocalReplica, completion: Completion, count: Callable[[int], None]) -> None:
        """`completion` gets the text, and says when the text is of no use any more; `count` gets the numbers of sampled
        tokens."""
        self._replica = replica
        self._completion = completion
        self._count = count
        self._streams: list[OutputStream] = []
        self._first_token_ns: int | None = None

    def submit(self, request: AddRequest | EmbedRequest, n: int) -> None:
        """Hands `n` copies to the engine. Raises OverloadedError; some of them may run then: withdraw."""
        for each in [request] if isinstance(request, EmbedRequest) else copies(request, n):
            self._streams.append(self._replica.submit(each))

    async def withdraw(self) -> None:
        """Ends those that were handed over; what they have computed is nobody's."""
        self._abort()
        await self._read_all()

    async def end(self) -> Ending:
        """Passes text on until every choice has ended. One that fails ends the others."""
        aborter = asyncio.create_task(self._abort_when_cancelled())
        try:
            outputs = await self._read_all()
        finally:
            aborter.cancel()
        usages = [output.usage for output in outputs if output.usage is not None]
        return Ending(
            finish_reasons=tuple(output.finish_reason for output in outputs if output.finish_reason is not None),
            usage=summed(usages, sum(output.compute_ns for output in outputs)),
            error=next((output.error for output in outputs if output.error is not None), None),
            first_token_ns=self._first_token_ns,
            stop_string=outputs[0].stop_string,
            embeddings=outputs[0].embeddings,
        )

    async def _read_all(self) -> list[RequestOutput]:
        return await asyncio.gather(*(self._read(index, stream) for index, stream in enumerate(self._streams)))

    async def _read(self, index: int, stream: OutputStream) -> RequestOutput:
        """The terminal output of one choice."""
        last = await stream.forward(partial(self._take, index))
        if last.finish_reason is FinishReason.ERROR:
            self._abort()
        return last

    def _take(self, index: int, output: RequestOutput) -> None:
        if output.token_ids:
            if self._first_token_ns is None:
                self._first_token_ns = time.monotonic_ns()
            self._count(len(output.token_ids))
        if output.text or output.token_ids:
            self._completion.put(TextDelta(output.text, output.logprobs, len(output.token_ids), index))

    def _abort(self) -> None:
        for stream in self._streams:
            self._replica.abort(stream.request_id)

    async def _abort_when_cancelled(self) -> None:
        await self._completion.cancelled.wait()
        self._abort()


def copies(request: AddRequest, n: int) -> list[AddRequest]:
    """`n` requests that differ in their ids, and in their seeds if one was given. A constraint is compiled once."""
    if n == 1:
        return [request]
    return [
        replace(request, request_id=f"{request.request_id}.{index}", params=request.params.for_choice(index))
        for index in range(n)
    ]


def summed(usages: Sequence[Usage], compute_ns: int) -> Usage:
    """What a request is billed for (BILLING R4): its prompt once, cached as far as the first choice found it so, and
    everything that was generated. The first that got furthest into the prompt counts, for all may have been cancelled
    in the midst of it. The time of all choices is rounded once (BILLING R14)."""
    furthest = max(usages, key=lambda usage: usage.prompt_tokens)
    return Usage(
        prompt_tokens=furthest.prompt_tokens,
        cached_tokens=furthest.cached_tokens,
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        compute_ms=rounded_ms(compute_ns),
    )
