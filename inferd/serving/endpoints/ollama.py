"""`/api/chat` and `/api/generate`: Ollama's API."""

from __future__ import annotations

from typing import ClassVar, Self

from inferd.chat.answer_reader import AnswerReader
from inferd.chat.dialects.answer_parser import answer_parser
from inferd.chat.dialects.families import GENERIC
from inferd.chat.dialects.spec import ReasoningState
from inferd.deployments.deployment import Deployment
from inferd.serving.completion import Admission
from inferd.serving.endpoints.chat import ChatEndpoint
from inferd.serving.endpoints.chat_prompt import chat_tokens, prepared_chat
from inferd.serving.endpoints.endpoint import Call, Prepared
from inferd.serving.endpoints.ollama_answer import MEDIA_TYPE, OllamaWriter, encode_line
from inferd.serving.endpoints.prompt import check_token_ids, too_long
from inferd.serving.endpoints.text_completions import prompt_tokens
from inferd.tokenizer import Check
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.ollama.requests import OllamaAsk, parse_ollama_chat, parse_ollama_generate
from inferd.wire.ollama.responses import encode_load
from inferd.wire.ollama.writer import OllamaLineWriter
from inferd.wire.openai.request_fields import TextInput


class OllamaEndpoint(ChatEndpoint):
    """Call of Ollama's API for text.

    Attributes:
        is_chat: whether its answers are messages.
    """

    media_type = MEDIA_TYPE
    is_chat: ClassVar[bool]

    def __init__(self, ask: OllamaAsk) -> None:
        super().__init__(ask.chat, ask.names)
        self._ask = ask
        self._deployment = ask.chat.model

    @property
    def is_empty(self) -> bool:
        return self._ask.is_load

    def empty_answer(self, model: str) -> bytes:
        return encode_load(model, is_chat=self.is_chat, is_unload=self._ask.is_unload)

    def _line_writer(self, deployment: str) -> OllamaLineWriter:
        self._deployment = deployment  # a stream's pings name it, too
        return OllamaLineWriter(deployment, is_chat=self.is_chat)

    def ping(self) -> bytes:
        return encode_line(self._line_writer(self._deployment).ping())


class OllamaChat(OllamaEndpoint):
    """Call of `POST /api/chat`."""

    path = "/api/chat"
    name = "ollama_chat"
    is_chat = True

    @classmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> Self:
        return cls(parse_ollama_chat(body, ignored))

    def answer(self, call: Call, admission: Admission, *, streamed: bool) -> OllamaWriter:
        writer = self._line_writer(call.deployment.name)
        return OllamaWriter(call, self.reader(call, admission), writer, streamed=streamed)


class OllamaGenerate(OllamaEndpoint):
    """Call of `POST /api/generate`."""

    path = "/api/generate"
    name = "ollama_generate"
    is_chat = False

    def __init__(self, ask: OllamaAsk) -> None:
        super().__init__(ask)
        self._prompt: tuple[int, ...] = ()

    @classmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> Self:
        return cls(parse_ollama_generate(body, ignored))

    def prepare(
        self, number: int, deployment: Deployment, max_output_tokens: int | None = None, *, check: Check | None = None
    ) -> Prepared:
        replica, raw = deployment.replica, self._ask.raw
        if raw is not None:
            prompt = prompt_tokens(TextInput(raw, "prompt"), replica, check), ReasoningState.OFF
        else:
            add_bos = not self._ask.context
            prompt = self._after_context(deployment, *chat_tokens(self.chat, replica, check, add_bos=add_bos))
        self._prompt = prompt[0]
        return prepared_chat(self.chat, deployment, max_output_tokens, prompt)

    def _after_context(
        self, deployment: Deployment, token_ids: tuple[int, ...], reasoning: ReasoningState
    ) -> tuple[tuple[int, ...], ReasoningState]:
        """Return the tokens of the prompt behind those of the context. Raises InvalidRequestError,
        ContextLengthError."""
        context, replica = self._ask.context, deployment.replica
        check_token_ids(context, replica.tokenizer.n_vocab, "context")
        num_tokens = len(context) + len(token_ids)
        if num_tokens >= replica.max_context:
            raise too_long(replica.max_context, str(num_tokens), "context" if context else "messages")
        return (*context, *token_ids), reasoning

    def reader(self, call: Call, admission: Admission) -> AnswerReader:
        """Return a new reader of the text; the text of a raw prompt is read as it is."""
        if self._ask.raw is None:
            return super().reader(call, admission)
        return AnswerReader(answer_parser(GENERIC, {}), counts_reasoning=False)

    def answer(self, call: Call, admission: Admission, *, streamed: bool) -> OllamaWriter:
        writer = self._line_writer(call.deployment.name)
        prompt = self._prompt if self._ask.raw is None else None
        return OllamaWriter(call, self.reader(call, admission), writer, streamed=streamed, prompt=prompt)
