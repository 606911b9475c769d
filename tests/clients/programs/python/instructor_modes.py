"""instructor in its modes: calls of tools, strict calls, a JSON schema, Responses."""

from __future__ import annotations

import instructor
import openai
import runner
from pydantic import BaseModel
from runner import JUDGE, MODEL, SYSTEM

MODE = instructor.Mode
MODES = (MODE.TOOLS, MODE.TOOLS_STRICT, MODE.JSON_SCHEMA, MODE.JSON, MODE.MD_JSON)


class Verdict(BaseModel):
    """A verdict."""

    mood: str
    score: int


def client(mode: instructor.Mode, key: str = runner.KEY) -> instructor.Instructor:
    base = openai.OpenAI(base_url=f"{runner.BASE_URL}/v1", api_key=key, max_retries=0)
    return instructor.from_openai(base, mode=mode)


def judge(mode: instructor.Mode = MODE.TOOLS, key: str = runner.KEY, **options) -> Verdict:
    asked = {"model": MODEL, "messages": [{"role": "user", "content": JUDGE}], "max_retries": 0}
    return client(mode, key).create(**asked | {"response_model": Verdict} | options)


def partial(mode: instructor.Mode = MODE.TOOLS, **options) -> Verdict:
    messages = [{"role": "user", "content": JUDGE}]
    *_, last = client(mode).create_partial(model=MODEL, messages=messages, response_model=Verdict, **options)
    return Verdict(**last.model_dump())


if __name__ == "__main__":
    asked = [{"role": "user", "content": JUDGE}]
    _, raw = client(MODE.TOOLS).create_with_completion(model=MODEL, messages=asked, response_model=Verdict)
    runner.report(
        structured=judge().model_dump(),
        modes=[judge(mode).model_dump() for mode in MODES],
        stream=partial().model_dump(),
        usage=[[raw.usage.prompt_tokens, raw.usage.completion_tokens]],
        errors=runner.errors(lambda key: judge(key=key)),
    )
    runner.vary(
        [
            *(lambda mode=mode: partial(mode) for mode in MODES),
            *(lambda mode=mode: judge(mode, temperature=0.1, seed=4) for mode in MODES),
            *(lambda mode=mode: judge(mode, max_tokens=300, top_p=0.5) for mode in MODES),
            lambda: judge(MODE.RESPONSES_TOOLS, max_retries=1),
            lambda: judge(MODE.PARALLEL_TOOLS),
            lambda: judge(messages=[{"role": "system", "content": SYSTEM}, *asked]),
            lambda: list(client(MODE.TOOLS).create_iterable(model=MODEL, messages=asked, response_model=Verdict)),
        ]
    )
