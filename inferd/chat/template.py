"""Chat templates of models: messages to prompt text in which user text cannot pose as control tokens.

The Jinja dialect is that of Hugging Face transformers (utils/chat_template_utils.py). Rendering is pure and takes time
in proportion to the messages, whose size the HTTP body limit bounds. The sandbox stops a template that loops or makes
strings without end, and no template reaches outside of it. Control tokens in user text: see literal_spans.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from inferd.chat.literal_spans import ControlTexts, Sentinels, mapped_strings
from inferd.chat.sandbox.budget import BudgetError, running_budget
from inferd.chat.sandbox.environment import BoundedEnvironment, BoundedTemplate
from inferd.chat.sandbox.string_costs import check_width
from inferd.errors import ConfigError, InvalidRequestError
from inferd.tokenizer import Segment, Tokenizer

_API_WORDS = {"role", "content", "name", "type", "function", "description", "parameters", "arguments", "id"}
_API_WORDS |= {"tool_calls", "tool_call_id", "reasoning_content", "thinking"}
_SCHEMA_WORDS = {"properties", "required", "items", "enum", "const", "default", "format", "nullable", "title"}
_SCHEMA_WORDS |= {"anyOf", "oneOf", "allOf", "additionalProperties", "$ref", "$defs", "minimum", "maximum"}
_SCHEMA_WORDS |= {"object", "array", "string", "number", "integer", "boolean", "null"}
_WORDS = frozenset(_API_WORDS | _SCHEMA_WORDS)
_MAX_REASON_CHARACTERS = 1_000
"""Characters of a template's own error message that are repeated."""
_MAX_STRFTIME_CHARACTERS = 1_000


class ChatTemplate:
    """Compiled template. Every method may be called from any thread.

    Attributes:
        name: name in error messages.
        source: Jinja text.
        gives_parts: whether contents are given as lists of text parts, for a template that writes no strings; set when
            the template is probed.
        variables: names that the template reads and does not set itself.
    """

    def __init__(
        self,
        source: str | None,
        tokenizer: Tokenizer,
        *,
        name: str = "chat template",
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        """Compile the template.

        Args:
            source: Jinja text, None or "" if the model has none.
            tokenizer: source of `bos_token`, `eos_token` and the texts of the control tokens.
            name: name in error messages, such as the template's file.
            clock: local time for `strftime_now`.

        Raises:
            ConfigError: there is no template, or it does not compile.
        """
        if not source:
            raise ConfigError(
                f"{name}: the model has no chat template; name a Jinja file as chat_template in models.toml"
            )
        self._environment = _environment(clock)
        try:
            self._template = BoundedTemplate(self._environment, source)
            self.variables = frozenset(meta.find_undeclared_variables(self._environment.parse(source)))
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(f"{name}: line {error.lineno}: {error.message}") from error
        except Exception as error:  # Jinja's and Python's compilers raise many kinds of errors
            raise ConfigError(
                f"{name}: the template cannot be compiled ({_reason(error)}); name another as chat_template"
            ) from error
        self._special_tokens = {"bos_token": tokenizer.bos_text, "eos_token": tokenizer.eos_text}
        self.name = name
        self.source = source
        self.gives_parts = False
        self._own_characters = frozenset(source).union(tokenizer.bos_text, tokenizer.eos_text)
        self._control_texts = ControlTexts(tokenizer.control_texts)
        # OpenAI renamed "system" to "developer"; templates that do not know the new name get the old one.
        self._knows_developer = "developer" in source

    def render(
        self, messages: Sequence[Mapping[str, object]], add_generation_prompt: bool = True, **variables: object
    ) -> list[Segment]:
        """Return the prompt for `messages`, as segments whose joined texts are the rendered prompt.

        Args:
            messages: dictionaries with `role` (one of the API's own words, already checked) and `content`.
            add_generation_prompt: whether to end with the opening of the assistant's turn.
            variables: more variables for the template. Their strings are user text, as those of the messages are.

        Raises:
            InvalidRequestError: the template refuses the messages or fails on them.
        """
        return self._segments(messages, variables, add_generation_prompt=add_generation_prompt)

    def continued(self, messages: Sequence[Mapping[str, object]], /, **variables: object) -> list[Segment]:
        """Return the prompt that ends after the content of the last message, which the model continues. Otherwise as
        `render`."""
        return self._segments(messages, variables, is_continued=True)

    def _segments(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object],
        *,
        add_generation_prompt: bool = False,
        is_continued: bool = False,
    ) -> list[Segment]:
        sentinels = self._sentinels(messages, variables)
        mark = _sparing_words(sentinels.mark)
        names: dict[str, object] = {"tools": None, "documents": None, **self._special_tokens}
        names |= {name: mapped_strings(value, mark) for name, value in variables.items()}
        last = len(messages) - 1 if is_continued else None
        marked = [
            self._marked(message, mark, sentinels.end if index == last else "")
            for index, message in enumerate(messages)
        ]
        try:
            rendered = self._template.render(
                names | {"messages": marked, "add_generation_prompt": add_generation_prompt}
            )
        except Exception as error:  # a template may raise any error, also for lack of memory or stack
            raise InvalidRequestError(
                f"The model's chat template does not accept these messages: {sentinels.strip(_reason(error))}",
                param="messages",
                code="invalid_value",
            ) from error
        return sentinels.segments(sentinels.until_end(rendered) if is_continued else rendered)

    def _sentinels(self, messages: Sequence[Mapping[str, object]], variables: Mapping[str, object]) -> Sentinels:
        used = set(self._own_characters)

        def note(text: str) -> str:
            used.update(text)
            return text

        mapped_strings([dict(message) for message in messages], note)
        mapped_strings(dict(variables), note)
        return Sentinels(self._control_texts, used)

    def _marked(self, message: Mapping[str, object], mark: Callable[[str], str], end: str) -> dict[str, object]:
        """Return the message with its literal spans marked, and `end` after its content. Field names and the role stay:
        templates compare them."""
        role = message["role"]
        if role == "developer" and not self._knows_developer:
            role = "system"
        marked = {key: mapped_strings(value, mark) for key, value in message.items()} | {"role": role}
        if end:
            marked["content"] = f"{marked['content']}{end}"
        if self.gives_parts and isinstance(marked.get("content"), str):
            marked["content"] = [{"type": "text", "text": marked["content"]}]
        return marked


def _sparing_words(mark: Callable[[str], str]) -> Callable[[str], str]:
    """Return `mark` with an exception for words of the API and of JSON schemas. Templates look members up by them and
    compare them. Some are part of a control token ("function" in `<start_function_call>`); none is a whole one."""
    return lambda text: text if text in _WORDS else mark(text)


def _environment(clock: Callable[[], datetime]) -> BoundedEnvironment:
    environment = BoundedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda format: _strftime(clock(), format)
    return environment


class _GenerationBlock(Extension):
    """`{% generation %}`, which marks an assistant's text for training and has no effect here."""

    tags = {"generation"}  # noqa: RUF012  (Jinja reads it from the class)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return plain JSON, as models are trained on it; Jinja's own filter escapes HTML."""
    budget = running_budget()
    size = budget.measure(value)
    margin = check_width(indent) + (len(indent) if isinstance(indent, str) else 0)
    between = budget.weigh(separators) if separators is not None else 4
    budget.allow((12 if ensure_ascii else 6) * size.characters + size.items * (8 + between + size.depth * margin))
    return budget.made(
        json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    )


def _strftime(moment: datetime, format: str) -> str:
    if len(format) > _MAX_STRFTIME_CHARACTERS:
        raise BudgetError(f"strftime_now takes at most {_MAX_STRFTIME_CHARACTERS} characters")
    return moment.strftime(format)


def _raise_exception(message: object) -> NoReturn:
    raise jinja2.TemplateError(running_budget().written(message)[:_MAX_REASON_CHARACTERS])


def _reason(error: Exception) -> str:
    """Return the message of an error, or its type if it has none."""
    return str(error)[:_MAX_REASON_CHARACTERS] or type(error).__name__
