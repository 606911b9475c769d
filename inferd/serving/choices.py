"""Choices of one request: `n` sequences in the engine that continue one prompt.

The engine computes the prompt for the first of them; the others wait until it is there and copy it, as requests with a
common prefix always do. To the ledger and to the limits they are one request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial

from inferd.deployments.local_replica import LocalReplica
from inferd.engine.engine import OutputStream
from inferd.engine.messages import AddRequest, EmbedRequest, FinishReason, RequestOutput
from inferd.serving.completion import Completion, Finished, TextDelta
from inferd.usage import Usage, rounded_ms


class Choices:
    """Sequences of one request. Submit, then wait for the end, or withdraw; once each. Belongs to the event loop.

    Args:
        completion: gets the text, and says when the text is of no use any more.
        number: position of the request in its call.
        count: gets the numbers of sampled tokens.
    """

    def __init__(
        self, replica: LocalReplica, completion: Completion, number: int, count: Callable[[int], None]
    ) -> None:
        self._replica = replica
        self._completion = completion
        self._number = number
        self._count = count
        self._streams: list[OutputStream] = []
        self._submitted_ns = 0
        self._first_token_ns: int | None = None
        self._last_token_ns = 0

    def submit(self, requests: Sequence[AddRequest | EmbedRequest]) -> None:
        """Hand one request a choice to the engine. Raises OverloadedError; some of them may run then: withdraw."""
        self._submitted_ns = time.monotonic_ns()
        for request in requests:
            self._streams.append(self._replica.submit(request))

    async def withdraw(self) -> None:
        """End the sequences that were handed over, whose computed tokens are not billed."""
        self._abort()
        await self._read_all()

    async def end(self) -> Finished:
        """Pass text on until every choice has ended; a choice that fails ends the others."""
        aborter = asyncio.create_task(self._abort_when_cancelled())
        try:
            outputs = await self._read_all()
        finally:
            aborter.cancel()
        first_token_ns = self._first_token_ns
        prompt_ns = 0 if first_token_ns is None else first_token_ns - self._submitted_ns - outputs[0].waited_ns
        usages = [output.usage for output in outputs if output.usage is not None]
        return Finished(
            finish_reasons=tuple(output.finish_reason for output in outputs if output.finish_reason is not None),
            usage=summed_usage(usages, sum(output.compute_ns for output in outputs)),
            error=next((output.error for output in outputs if output.error is not None), None),
            first_token_ns=first_token_ns,
            prompt_ns=max(0, prompt_ns),
            predicted_ns=0 if first_token_ns is None else self._last_token_ns - first_token_ns,
            stop_string=outputs[0].stop_string,
            embeddings=outputs[0].embeddings,
            number=self._number,
        )

    async def _read_all(self) -> list[RequestOutput]:
        first = self._number * len(self._streams)
        return await asyncio.gather(*(self._read(index, stream) for index, stream in enumerate(self._streams, first)))

    async def _read(self, index: int, stream: OutputStream) -> RequestOutput:
        """Return the terminal output of one choice."""
        last = await stream.forward(partial(self._take, index))
        if last.finish_reason is FinishReason.ERROR:
            self._abort()
        return last

    def _take(self, index: int, output: RequestOutput) -> None:
        if output.token_ids:
            self._last_token_ns = time.monotonic_ns()
            if self._first_token_ns is None:
                self._first_token_ns = self._last_token_ns
            self._count(len(output.token_ids))
        if output.text or output.token_ids or output.prompt_logprobs:
            delta = TextDelta(
                output.text,
                output.logprobs,
                len(output.token_ids),
                index,
                output.token_ids,
                output.end_logprob,
                output.prompt_logprobs,
            )
            self._completion.put(delta)

    def _abort(self) -> None:
        for stream in self._streams:
            self._replica.abort(stream.request_id)

    async def _abort_when_cancelled(self) -> None:
        await self._completion.cancelled.wait()
        self._abort()


def summed_usage(usages: Sequence[Usage], compute_ns: int) -> Usage:
    """Return what a request of these choices is billed for (BILLING R4): its prompt once, and all generated tokens.

    Of the prompt, the choice that got furthest counts, and among equals the first: all may have been cancelled before
    the prompt was computed. The time of all choices is rounded once (BILLING R14).
    """
    furthest = max(usages, key=lambda usage: usage.prompt_tokens)
    return Usage(
        prompt_tokens=furthest.prompt_tokens,
        cached_tokens=furthest.cached_tokens,
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        compute_ms=rounded_ms(compute_ns),
    )
