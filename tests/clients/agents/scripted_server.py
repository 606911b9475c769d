"""`python -m tests.clients.agents.scripted_server SCRIPT serve ...`: the real command, with models that say what the
file SCRIPT tells them to say.

HTTP, chat templates, vocabulary, grammar masks, answer parsers, KV memory and ledger are the real ones. Only the
choice of each token is replaced: no model that is small enough for a test calls a tool by itself.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from inferd.cli.main import main
from inferd.engine.llama import loading
from inferd.engine.llama.runner import LlamaRunner
from inferd.engine.runner import Logits
from inferd.sampling_params import SamplingParams
from inferd.tokenizer import Segment

RESULT_CHARACTERS = 200


@dataclass(frozen=True)
class Call:
    """A call of a tool."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Script:
    """Answers of a model to prompts written by the Qwen templates.

    Attributes:
        answer: the text of an answer that calls no tool.
        calls: one an answer, each in a prompt that offers its tool and has the results of those before it.
        thinking: what the model thinks before each answer, unless the prompt has closed its thinking.
    """

    answer: str
    calls: tuple[Call, ...] = ()
    thinking: str = ""

    @classmethod
    def read(cls, path: Path) -> Script:
        told = json.loads(path.read_text())
        return cls(**{**told, "calls": tuple(Call(**call) for call in told["calls"])})

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    def reply(self, prompt: str) -> str:
        """Return the answer to `prompt`: the next call, or after the last result `answer` and how the result begins."""
        opening = ""
        if self.thinking and not prompt.endswith("</think>\n\n"):
            begun = "" if prompt.endswith("<think>\n") else "<think>\n"
            opening = f"{begun}{self.thinking}\n</think>\n\n"
        instructions, _, conversation = prompt.partition("<|im_start|>user\n")
        num_results = conversation.count("<tool_response>\n")
        if num_results < len(self.calls) and self._is_offered(self.calls[num_results].tool, prompt):
            return f"{opening}<tool_call>\n{_written(self.calls[num_results], instructions)}\n</tool_call>"
        if num_results:
            quoted, _, _ = conversation.rpartition("<tool_response>\n")[2].partition("\n</tool_response>")
            return f"{opening}{self.answer} {quoted[:RESULT_CHARACTERS]}"
        return opening + self.answer

    @staticmethod
    def _is_offered(tool: str, prompt: str) -> bool:
        """Return whether a template told of the tool, or a message of a deferred one."""
        return f'"name": "{tool}"' in prompt or f'"name":"{tool}"' in prompt


def _written(call: Call, instructions: str) -> str:
    """Return the call in the notation that the instructions ask for: tags for Qwen3.5, JSON for Qwen2.5."""
    if "<function=" not in instructions:
        return json.dumps({"name": call.tool, "arguments": call.arguments})
    values = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in call.arguments.items())
    return f"<function={call.tool}>\n{values}</function>"


class ScriptedSampler:
    """Sampler of one request: its tokens, one after the other."""

    def __init__(self, token_ids: list[int]) -> None:
        self._token_ids = iter(token_ids)

    def sample(self, logits: Logits) -> int:
        """Return the next token. Raises RuntimeError if the request's grammar forbids it, or none is left."""
        token_id = next(self._token_ids, None)
        if token_id is None or np.isneginf(logits[token_id]):
            raise RuntimeError(f"the script's next token, {token_id}, is not allowed by the grammar of the request")
        return token_id

    def close(self) -> None: ...


class ScriptedRunner(LlamaRunner):
    """The real model, but for the choice of tokens."""

    script: Path

    def new_sampler(self, params: SamplingParams, prompt: tuple[int, ...] = ()) -> ScriptedSampler:  # type: ignore[override]
        vocabulary = self._model.vocabulary
        reply = Script.read(self.script).reply(vocabulary.decode(prompt))
        text = Segment(reply, special=False), Segment(vocabulary.eos_text, special=True)
        return ScriptedSampler(vocabulary.encode(text, add_bos=False))

    def sample(self, sampler: Any, row: int) -> int:
        return sampler.sample(self.logits(row))

    def sample_from(self, sampler: Any, logits: Logits) -> int:
        return sampler.sample(logits)


def run(arguments: list[str]) -> int:
    """Serve with scripted models."""
    script, *command = arguments
    ScriptedRunner.script = Path(script)
    loading.LlamaRunner = ScriptedRunner  # type: ignore[misc]
    return main(command)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
