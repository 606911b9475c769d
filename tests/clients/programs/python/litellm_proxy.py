"""LiteLLM's proxy before the server: chat, messages and Responses by the official clients, through the proxy."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anthropic
import openai
import runner
from runner import HELLO, RESULT, WEATHER, WEATHER_TOOL

PROXY_KEY = "sk-proxy"
START_S = 400.0
NAMES = {"m": runner.KEY, "401": "sk-inferd-wrong", "402": runner.WRONG_KEYS["402"], "429": runner.WRONG_KEYS["429"]}
"""Models of the proxy, and the key that it calls the server with for each."""


@contextmanager
def proxy() -> Iterator[str]:
    """The URL of a proxy that runs while the context lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    models = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{runner.MODEL}", "api_base": f"{runner.BASE_URL}/v1", "api_key": key},
        }
        for name, key in NAMES.items()
    ]
    settings = {
        "model_list": models,
        "general_settings": {"master_key": PROXY_KEY},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "litellm_settings": {"num_retries": 0, "telemetry": False},
    }
    Path("proxy.yaml").write_text(json.dumps(settings))  # JSON is YAML
    command = [str(Path(sys.executable).with_name("litellm")), "--config", "proxy.yaml", "--port", str(port)]
    with Path("proxy.log").open("w") as log:
        process = subprocess.Popen([*command, "--host", "127.0.0.1"], stdout=log, stderr=log, env=os.environ)
    try:
        wait_for(f"http://127.0.0.1:{port}/health/liveliness", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def wait_for(url: str, process: subprocess.Popen) -> None:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"the proxy did not start:\n{Path('proxy.log').read_text()[-2000:]}")


def ask(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def main(url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=PROXY_KEY, max_retries=0)
    messages = anthropic.Anthropic(base_url=url, api_key=PROXY_KEY, max_retries=0).messages

    def chat(model: str = "m", **options):
        return client.chat.completions.create(**{"model": model, "messages": ask(HELLO)} | options)

    def stream(**options) -> str:
        chunks = chat(stream=True, stream_options={"include_usage": True}, **options)
        return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)

    def tools(**options) -> str:
        turns = ask(WEATHER)
        called = chat(messages=turns, tools=[WEATHER_TOOL], **options).choices[0].message
        result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": RESULT}
        return chat(messages=[*turns, called, result], tools=[WEATHER_TOOL]).choices[0].message.content

    def message(**options) -> str:
        made = messages.create(**{"model": "m", "max_tokens": 100, "messages": ask(HELLO)} | options)
        return "".join(block.text for block in made.content if block.type == "text")

    def response(**options) -> str:
        return client.responses.create(model="m", input=HELLO, **options).output_text

    whole = chat()
    runner.report(
        chat=whole.choices[0].message.content,
        stream=stream(),
        usage=[[whole.usage.prompt_tokens, whole.usage.completion_tokens]],
        tools=tools(),
        embeddings=len(client.embeddings.create(model="m", input=["a", "b"], encoding_format="float").data),
        message=message(),
        response=response(),
        errors={status: runner.names_of_error(lambda status=status: chat(status)) for status in runner.WRONG_KEYS},
    )
    runner.vary(
        [
            *(lambda options=options: chat(**options) for options in runner.OPTIONS),
            *(lambda options=options: stream(**options) for options in runner.OPTIONS[:6]),
            lambda: message(system=runner.SYSTEM, temperature=0.2),
            lambda: message(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=1500),
            lambda: message(metadata={"user_id": "user_0_account__session_1"}),
            lambda: list(messages.create(model="m", max_tokens=20, messages=ask(HELLO), stream=True)),
            lambda: response(instructions=runner.SYSTEM),
            lambda: response(reasoning={"effort": "low"}, max_output_tokens=20),
            lambda: list(client.responses.create(model="m", input=HELLO, stream=True)),
            lambda: tools(temperature=0),
        ]
    )


if __name__ == "__main__":
    with proxy() as started:
        main(started)
