"""langchain-openai."""

from __future__ import annotations

from typing import Literal

import httpx2
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

from tests.clients.conftest import MODEL


class Verdict(BaseModel):
    """What one thinks of a thing."""

    mood: Literal["good", "bad"]
    score: int = Field(ge=0, le=9)


@tool
def add(a: Literal[1, 2, 3], b: Literal[1, 2, 3]) -> int:
    """Adds two numbers."""
    return a + b


def chat(team, **options) -> ChatOpenAI:
    options = {"max_tokens": 120, "temperature": 0, "max_retries": 0} | options
    return ChatOpenAI(model=MODEL, base_url=team.server.base_url, api_key=team.key, **options)


def test_chat_and_stream(team):
    model = chat(team, max_tokens=12)
    whole = model.invoke("Say hello.")
    assert whole.content
    assert whole.usage_metadata["output_tokens"] <= 12
    pieces = list(model.stream("Say hello.", stream_usage=True))
    assert "".join(piece.content for piece in pieces)
    assert sum(piece.usage_metadata["output_tokens"] for piece in pieces if piece.usage_metadata) <= 12


def test_a_tool_round(team):
    model = chat(team).bind_tools([add], tool_choice="required", parallel_tool_calls=False)
    asked = HumanMessage("What is 1 + 2?")
    called = model.invoke([asked])
    (call,) = called.tool_calls
    assert call["name"] == "add"
    result = add.invoke(call)
    assert isinstance(result, ToolMessage)
    assert isinstance(chat(team, max_tokens=12).bind_tools([add]).invoke([asked, called, result]), AIMessage)


def test_a_streamed_tool_call(team):
    model = chat(team).bind_tools([add], tool_choice="add")
    pieces = list(model.stream("What is 1 + 2?"))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    (call,) = whole.tool_calls
    assert {type(value) for value in call["args"].values()} == {int}


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(team, method):
    made = chat(team).with_structured_output(Verdict, method=method).invoke("How is the weather in Paris?")
    assert isinstance(made, Verdict)


def test_errors_are_openais(team, broke):
    with pytest.raises(openai.BadRequestError, match="temperature"):
        chat(team, temperature=9).invoke("Hi")
    with pytest.raises(openai.AuthenticationError):
        ChatOpenAI(model=MODEL, base_url=team.server.base_url, api_key="sk-wrong", max_retries=0).invoke("Hi")
    with pytest.raises(openai.APIStatusError, match="credit"):
        chat(broke).invoke("Hi")


def test_embeddings(team):
    options = {"base_url": team.server.base_url, "api_key": team.key, "check_embedding_ctx_length": False}
    with httpx2.Client() as http:
        model = OpenAIEmbeddings(model=MODEL, http_client=http, **options)
        vectors = model.embed_documents(["The sky is blue.", "Blue is the sky.", "SELECT name FROM users WHERE id = 3"])
    near, far = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
    assert far < near < 1
