"""dspy, which calls by LiteLLM: fields as text, and as JSON."""

from __future__ import annotations

import dspy
import runner
from runner import HELLO, MODEL


def model(key: str = runner.KEY, **options) -> dspy.LM:
    options = {"cache": False, "num_retries": 0} | options
    return dspy.LM(f"openai/{MODEL}", api_base=f"{runner.BASE_URL}/v1", api_key=key, **options)


def predict(key: str = runner.KEY, adapter: dspy.Adapter | None = None, form: str = "question -> answer", **options):
    with dspy.context(lm=model(key, **options), adapter=adapter or dspy.ChatAdapter(use_json_adapter_fallback=False)):
        return dspy.Predict(form)(question=HELLO)


OPTIONS = ({"temperature": 0.2}, {"max_tokens": 500}, {"n": 2, "temperature": 0.9}, {"stop": ["END"]}, {"top_p": 0.8})

if __name__ == "__main__":
    lm = model()
    with dspy.context(lm=lm):
        answer = dspy.Predict("question -> answer")(question=HELLO).answer
    usage = lm.history[-1]["usage"]
    runner.report(
        chat=answer,
        usage=[[usage["prompt_tokens"], usage["completion_tokens"]]],
        errors=runner.errors(predict),
    )
    runner.vary(
        [
            *(lambda options=options: predict(**options) for options in OPTIONS),
            lambda: predict(adapter=dspy.JSONAdapter()),
            lambda: predict(adapter=dspy.JSONAdapter(), temperature=0.3),
            lambda: predict(form="question -> answer: str, mood: bool"),
            lambda: dspy.Embedder(f"openai/{MODEL}", api_base=f"{runner.BASE_URL}/v1", api_key=runner.KEY)(["a", "b"]),
        ]
    )
