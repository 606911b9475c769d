"""`python -m tests.clients.programs.answers serve ...`: the real command, with models that answer the programs.

As in tests/clients/agents/scripted_server.py, only the choice of each token is replaced. The answer follows from the
prompt alone, so that programs may run side by side, in any order.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import numpy as np

from inferd.cli.main import main
from inferd.engine.llama import loading
from inferd.engine.runner import Logits
from inferd.sampling_params import SamplingParams
from inferd.tokenizer import Segment
from tests.clients.agents.scripted_server import ScriptedRunner, ScriptedSampler

ANSWER = "The lighthouse is ready."
WEATHER = {"city": "Paris"}
VERDICT = {"mood": "good", "score": 7}
FINAL = "final_answer"
"""The tool by which smolagents wants its answer."""
_VERDICT_TOOLS = ("Verdict", "PartialVerdict", "json", "final_result", "json_tool_call")
"""Names that clients give to the tool of their structured output."""
_USER = "<|im_start|>user\n"
_RESULT = re.compile(r"<tool_response>\n(.*?)\n</tool_response>", re.DOTALL)
_OBSERVATION = re.compile(r"Observation:\n(.*?)<\|im_end\|>", re.DOTALL)
"""A result in the words of smolagents, which sends no message of the role tool."""


def reply(prompt: str) -> str:
    """Return the answer to a prompt that a Qwen template wrote."""
    instructions, _, conversation = prompt.partition(_USER)
    opening = "" if prompt.endswith("</think>\n\n") else "</think>\n\n" if prompt.endswith("<think>\n") else ""
    results = _RESULT.findall(conversation) or _OBSERVATION.findall(conversation)
    if results and _offers(instructions, FINAL):
        return opening + _call(instructions, FINAL, {"answer": f"It is {results[-1].strip()}."})
    if results:
        return f"{opening}It is {results[-1].strip()}."
    if "Judge" in conversation:
        for name in _VERDICT_TOOLS:
            if _offers(instructions, name):
                return opening + _call(instructions, name, VERDICT)
        return opening + json.dumps(VERDICT)
    if "weather" in conversation and _offers(instructions, "get_weather"):
        return opening + _call(instructions, "get_weather", WEATHER)
    if _offers(instructions, FINAL):
        return opening + _call(instructions, FINAL, {"answer": ANSWER})
    if "[[ ## answer ## ]]" in prompt:  # dspy's notation
        return f"{opening}[[ ## answer ## ]]\n{ANSWER}\n\n[[ ## completed ## ]]"
    return opening + ANSWER


def _offers(instructions: str, tool: str) -> bool:
    return f'"name": "{tool}"' in instructions


def _call(instructions: str, tool: str, arguments: dict[str, Any]) -> str:
    """Return a call in the notation that the instructions ask for: tags for Qwen3.5, JSON for Qwen2.5."""
    if "<function=" not in instructions:
        return f"<tool_call>\n{json.dumps({'name': tool, 'arguments': arguments})}\n</tool_call>"
    values = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in arguments.items())
    return f"<tool_call>\n<function={tool}>\n{values}</function>\n</tool_call>"


class AnsweringSampler(ScriptedSampler):
    """Sampler of `reply(prompt)`, and of any text that the grammar allows once it forbids that."""

    def __init__(self, token_ids: list[int]) -> None:
        super().__init__(token_ids)
        self._end = token_ids[-1]
        self._is_forced = False

    def sample(self, logits: Logits) -> int:
        if not self._is_forced:
            try:
                return super().sample(logits)
            except RuntimeError:
                self._is_forced = True
        return int(np.argmax(logits)) if np.isneginf(logits[self._end]) else self._end


class AnsweringRunner(ScriptedRunner):
    """Runner whose samplers say `reply(prompt)`."""

    def new_sampler(self, params: SamplingParams, prompt: tuple[int, ...] = ()) -> AnsweringSampler:  # type: ignore[override]
        vocabulary = self._model.vocabulary
        text = reply(vocabulary.decode(prompt))
        segments = Segment(text, special=False), Segment(vocabulary.eos_text, special=True)
        return AnsweringSampler(vocabulary.encode(segments, add_bos=False))


def run(arguments: list[str]) -> int:
    """Serve with answering models."""
    loading.LlamaRunner = AnsweringRunner  # type: ignore[misc]
    return main(arguments)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
