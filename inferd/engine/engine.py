"""The engine thread, and the streams of outputs that it fills.

Requests come in from the event loop through a bounded inbox; outputs go back with one wake-up of the loop per step,
never one per token.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from enum import Enum
from functools import partial
from pathlib import Path

from inferd.engine.backlog import Backlog
from inferd.engine.cost_model import Speed
from inferd.engine.messages import AbortRequest, AddRequest, EmbedRequest, FinishReason, RequestOutput
from inferd.engine.model_core import ModelCore
from inferd.errors import OverloadedError
from inferd.usage import Usage

MAX_CRASHES = 3
"""Steps in a row that raise before the engine fails."""
NOT_READY_RETRY_AFTER_S = 5.0
SPEED_INTERVAL_S = 1.0
"""Maximum age of the reported speed: the engine does not compute while it is worked out."""

logger = logging.getLogger(__name__)

Take = Callable[[RequestOutput], None]


class EngineState(Enum):
    """Life of an engine."""

    STARTING = "starting"
    READY = "ready"
    STOPPED = "stopped"
    FAILED = "failed"


class OutputStream:
    """Outputs of one request, filled and read on the event loop. Bounded by the request's own `max_tokens`: a slow
    reader costs the memory of its answer, never more."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self._kept: list[RequestOutput] = []
        self._take: Take = self._kept.append
        self._last: asyncio.Future[RequestOutput] = asyncio.get_running_loop().create_future()

    def put(self, output: RequestOutput) -> None:
        self._take(output)
        if output.finish_reason is not None:
            self._last.set_result(output)

    async def forward(self, take: Take) -> RequestOutput:
        """Call `take` with every output, in order, and return the terminal one.

        Call once; `take` must not raise. A callback instead of an async iterator because a task per output costs 50 %
        more loop time per token.
        """
        for output in self._kept:
            take(output)
        self._kept.clear()
        self._take = take
        return await self._last


class _Stop:
    """Message that ends the thread."""


class Engine:
    """A ModelCore on a thread of its own. All methods belong to the event loop that called `start`.

    Args:
        build_core: loads model and context and warms them up; called on the engine thread, which owns them.
        source: the model's file, which the traceback of a crash in native code names.
        backlog: the limits of live requests.
    """

    def __init__(
        self,
        name: str,
        build_core: Callable[[], ModelCore],
        source: Path | None = None,
        backlog: Backlog | None = None,
    ) -> None:
        self.name = name
        self.state = EngineState.STARTING
        self.failure: BaseException | None = None
        self._build_core = build_core
        self._inbox: queue.SimpleQueue[AddRequest | EmbedRequest | AbortRequest | _Stop] = queue.SimpleQueue()
        self._streams: dict[str, OutputStream] = {}
        self._backlog = backlog or Backlog()
        target = self._run if source is None else _called_from(source, self._run)
        self._thread = threading.Thread(target=target, name=f"inferd-engine-{name}", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def num_live(self) -> int:
        """Requests that wait or run."""
        return len(self._streams)

    @property
    def num_urgent(self) -> int:
        """Live requests that are not batch."""
        return self._backlog.num_urgent

    @property
    def speed(self) -> Speed:
        """Last reported speed."""
        return self._backlog.speed

    async def start(self) -> None:
        """Start the thread, and wait until the engine is warm. Raises the error of `build_core`."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        await self._started.wait()
        if self.failure is not None:
            raise self.failure

    def submit(self, request: AddRequest | EmbedRequest) -> OutputStream:
        """Queue a request; its outputs end with exactly one terminal one. Raises OverloadedError."""
        if self.state is not EngineState.READY:
            raise OverloadedError(
                f"The engine is {self.state.value}. Try again later.", retry_after_s=NOT_READY_RETRY_AFTER_S
            )
        if not self._backlog.has_room_for(request):
            raise OverloadedError(
                "The engine is currently overloaded, please try again later",
                retry_after_s=self._backlog.retry_after_s(request),
            )
        assert request.request_id not in self._streams, "request ids are unique"
        stream = OutputStream(request.request_id)
        self._streams[request.request_id] = stream
        self._backlog.add(request)
        self._inbox.put(request)
        return stream

    def abort(self, request_id: str) -> None:
        """End a request within a step; its terminal output follows. Ids of requests that have ended are ignored."""
        if request_id in self._streams:
            self._inbox.put(AbortRequest(request_id))

    def fail(self, reason: str) -> None:
        """End every live request with an error at once, and accept no more; `stop` comes next. Later outputs of the
        thread are dropped."""
        self.state = EngineState.FAILED
        self._end_streams(reason)

    async def stop(self) -> None:
        """End every live request with an error, release the model and join the thread."""
        if self._loop is None:
            return  # never started
        self._inbox.put(_Stop())
        await self._ended.wait()
        await asyncio.to_thread(self._thread.join)

    def _deliver(self, outputs: list[RequestOutput], speed: Speed | None = None) -> None:
        if speed is not None:
            self._backlog.observe(speed)
        for output in outputs:
            stream = self._streams.get(output.request_id)
            if stream is None:  # `fail` has ended the request
                continue
            if output.finish_reason is not None:
                del self._streams[output.request_id]
                self._backlog.remove(output.request_id)
            stream.put(output)

    def _set_state(self, state: EngineState, failure: BaseException | None = None) -> None:
        self.state = state
        self.failure = failure
        self._started.set()
        if state in (EngineState.STOPPED, EngineState.FAILED):
            # The thread sends no more terminal outputs.
            self._end_streams("The engine has ended.")
            self._ended.set()

    def _end_streams(self, error: str) -> None:
        self._deliver(
            [
                RequestOutput(request_id, finish_reason=FinishReason.ERROR, usage=Usage(), error=error)
                for request_id in self._streams
            ]
        )

    def _call_loop(self, callback: Callable[..., None], *args: object) -> None:
        assert self._loop is not None, "start comes first"
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed: the process is ending
            logger.warning("engine %s: the event loop is closed", self.name)

    # Below: the engine thread.

    def _run(self) -> None:
        try:
            core = self._build_core()
        except BaseException as error:  # noqa: BLE001 whatever it is, `start` raises it
            self._call_loop(self._set_state, EngineState.FAILED, error)
            return
        self._call_loop(self._set_state, EngineState.READY)
        was_stopped = False
        try:
            self._serve(core)
            was_stopped = True
            core.abort_all("The server is shutting down.")
            self._call_loop(self._deliver, core.take_outputs())
            core.close()
        except BaseException as error:  # no caller is left to handle it, and every stream must still end
            logger.exception("engine %s has failed", self.name)
            self._call_loop(self._deliver, core.take_outputs())
            self._call_loop(self._set_state, EngineState.FAILED, error)
            # Until `stop`, other threads may be reading the model's vocabulary.
            while not (was_stopped or isinstance(self._inbox.get(), _Stop)):
                pass
            core.close()
        else:
            self._call_loop(self._set_state, EngineState.STOPPED)

    def _serve(self, core: ModelCore) -> None:
        """Step until `stop`. A step that raises ends the live requests with an error; after MAX_CRASHES of them in a
        row, raise."""
        num_crashes = 0
        speed_due_s = time.monotonic()
        while True:
            try:
                if not self._read_inbox(core):
                    return
                core.step()
                num_crashes = 0
            except Exception:
                num_crashes += 1
                core.abort_all("The engine failed.")
                if num_crashes == MAX_CRASHES:
                    raise
                logger.exception("engine %s: a step crashed", self.name)
            if outputs := core.take_outputs():
                speed = None
                if time.monotonic() >= speed_due_s:
                    speed, speed_due_s = core.speed, time.monotonic() + SPEED_INTERVAL_S
                self._call_loop(self._deliver, outputs, speed)

    def _read_inbox(self, core: ModelCore) -> bool:
        """Handle all queued messages; wait for one if the core has no work. Return False at `stop`."""
        if not core.has_work:
            core.check_integrity()
        while not (self._inbox.empty() and core.has_work):
            message = self._inbox.get()
            if isinstance(message, _Stop):
                return False
            if isinstance(message, AddRequest | EmbedRequest):
                self._add(core, message)
            else:
                core.abort(message.request_id)
                if not core.has_work:
                    return True  # its terminal output is delivered before we wait
        return True

    def _add(self, core: ModelCore, request: AddRequest | EmbedRequest) -> None:
        try:
            core.add_request(request)
        except Exception:  # a request that breaks a precondition ends alone: the core has not taken it
            logger.exception("engine %s: request %s was not taken", self.name, request.request_id)
            refused = RequestOutput(
                request.request_id, finish_reason=FinishReason.ERROR, usage=Usage(), error="The engine failed."
            )
            self._call_loop(self._deliver, [refused])


def _called_from(source: Path, function: Callable[[], None]) -> Callable[[], None]:
    """Return `function`, called from a frame that has `source` as its file: faulthandler prints a frame's file, and
    nothing else could tell which model's file a bus error belongs to."""
    namespace: dict[str, Callable[[Callable[[], None]], None]] = {}
    exec(compile("def serve_model(function): function()", str(source), "exec"), namespace)
    return partial(namespace["serve_model"], function)
