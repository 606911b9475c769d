from __future__ import annotations

import asyncio

from inferd.engine.messages import FinishReason, RequestOutput
from inferd.engine.output_stream import OutputStream
from inferd.usage import Usage

TERMINAL = RequestOutput("r", "c", finish_reason=FinishReason.STOP, usage=Usage())


def test_outputs_come_in_order_and_end_with_the_terminal_one() -> None:
    async def main() -> list[str]:
        stream = OutputStream("r")
        for text in "ab":
            stream.put(RequestOutput("r", text))
        stream.put(TERMINAL)
        return [output.text async for output in stream]

    assert asyncio.run(main()) == ["a", "b", "c"]


def test_a_reader_waits_for_what_has_not_come_yet() -> None:
    async def main() -> list[RequestOutput]:
        stream = OutputStream("r")
        asyncio.get_running_loop().call_soon(stream.put, TERMINAL)
        return [output async for output in stream]

    assert asyncio.run(main()) == [TERMINAL]
