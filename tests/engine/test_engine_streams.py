from __future__ import annotations

import asyncio

from inferd.engine.engine import OutputStream
from inferd.engine.messages import FinishReason, RequestOutput
from inferd.usage import Usage

TERMINAL = RequestOutput("r", "c", finish_reason=FinishReason.STOP, usage=Usage())


def test_outputs_come_in_order_those_that_came_before_first_and_end_with_the_terminal_one() -> None:
    async def main() -> tuple[list[str], RequestOutput]:
        stream = OutputStream("r")
        taken: list[str] = []
        stream.put(RequestOutput("r", "a"))
        loop = asyncio.get_running_loop()
        loop.call_soon(stream.put, RequestOutput("r", "b"))
        loop.call_soon(stream.put, TERMINAL)
        return taken, await stream.forward(lambda output: taken.append(output.text))

    assert asyncio.run(main()) == (["a", "b", "c"], TERMINAL)


def test_one_that_has_ended_before_anybody_reads_it_is_read_whole() -> None:
    async def main() -> tuple[list[str], RequestOutput]:
        stream = OutputStream("r")
        taken: list[str] = []
        for output in (RequestOutput("r", "a"), TERMINAL):
            stream.put(output)
        return taken, await stream.forward(lambda output: taken.append(output.text))

    assert asyncio.run(main()) == (["a", "c"], TERMINAL)
