"""Families of models, and the detection of a chat template's family.

The formats are those of the templates that the models' makers publish (llama.cpp collects them in models/templates).
The first family whose signs are all in a template is its family, so special ones come first.
"""

from __future__ import annotations

from dataclasses import replace

from inferd.chat.dialects.spec import CallFormat, Dialect, ParameterTags, ReasoningTags

_HERMES = CallFormat(begin="<tool_call>\n", end="\n</tool_call>", separator="\n")
_QWEN_PARAMETER = ParameterTags("<parameter=", ">", "</parameter>", padding="\n")
_QWEN_CODER = CallFormat(
    begin="<tool_call>\n<function=",
    name_end=">\n",
    notation="tagged",
    parameters=_QWEN_PARAMETER,
    end="</function>\n</tool_call>",
    separator="\n",
)
_MISTRAL_ARRAY = CallFormat(section_begin="[TOOL_CALLS][", separator=", ", section_end="]")
_MISTRAL_NAMED = CallFormat(begin="[TOOL_CALLS]", name_end="[ARGS]")
_MISTRAL_WITH_ID = CallFormat(
    begin="[TOOL_CALLS]", name_end="[CALL_ID]", id_pattern="[a-zA-Z0-9]{9}", arguments_begin="[ARGS]"
)
_DEEPSEEK_SECTION = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
_DEEPSEEK_R1 = CallFormat(
    section_begin=_DEEPSEEK_SECTION[0],
    begin="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
    name_end="\n```json\n",
    end="\n```<｜tool▁call▁end｜>",
    separator="\n",
    section_end=_DEEPSEEK_SECTION[1],
)
_DEEPSEEK_V31 = CallFormat(
    section_begin=_DEEPSEEK_SECTION[0],
    begin="<｜tool▁call▁begin｜>",
    name_end="<｜tool▁sep｜>",
    end="<｜tool▁call▁end｜>",
    section_end=_DEEPSEEK_SECTION[1],
)
_GLM = CallFormat(
    begin="<tool_call>",
    name_end="",
    arguments_begin="\n",
    notation="tagged",
    parameters=ParameterTags("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>"),
    end="</tool_call>",
    separator="\n",
)
_GLM_COMPACT_PARAMETER = ParameterTags("<arg_key>", "</arg_key><arg_value>", "</arg_value>", gap="")
_LLAMA_3 = CallFormat(arguments_key="parameters", separator="; ")

FAMILIES = (
    Dialect("gpt-oss", signs=("<|channel|>", "<|message|>", "<|start|>"), channels=True, one_call=True),
    Dialect(
        "gemma-4",
        signs=("<|tool_call>call:", "<tool_call|>"),
        triggers=("<|tool_call>",),
        formats=(
            CallFormat(begin="<|tool_call>call:", name_end="", notation="gemma", quote='<|"|>', end="<tool_call|>"),
        ),
    ),
    Dialect(
        "function-gemma",
        signs=("<start_function_call>",),
        triggers=("<start_function_call>",),
        formats=(
            CallFormat(
                begin="<start_function_call>call:",
                name_end="",
                notation="gemma",
                quote="<escape>",
                end="<end_function_call>",
            ),
        ),
    ),
    Dialect(
        "deepseek-r1",
        signs=(*_DEEPSEEK_SECTION, "```json"),
        triggers=_DEEPSEEK_SECTION[:1],
        formats=(_DEEPSEEK_R1, _DEEPSEEK_V31),
    ),
    Dialect(
        "deepseek-v3.1",
        signs=_DEEPSEEK_SECTION,
        triggers=_DEEPSEEK_SECTION[:1],
        formats=(_DEEPSEEK_V31, _DEEPSEEK_R1),
    ),
    Dialect(
        "mistral-call-id",
        signs=("[TOOL_CALLS]", "[CALL_ID]"),
        triggers=("[TOOL_CALLS]",),
        formats=(_MISTRAL_WITH_ID, _MISTRAL_NAMED, _MISTRAL_ARRAY),
        call_id_length=9,
    ),
    Dialect(
        "mistral-named",
        signs=("[TOOL_CALLS]", "[ARGS]"),
        triggers=("[TOOL_CALLS]",),
        formats=(_MISTRAL_NAMED, _MISTRAL_WITH_ID, _MISTRAL_ARRAY),
        call_id_length=9,
    ),
    Dialect(
        "mistral-array",
        signs=("[TOOL_CALLS]",),
        triggers=("[TOOL_CALLS]",),
        formats=(_MISTRAL_ARRAY, _MISTRAL_NAMED, _MISTRAL_WITH_ID),
        call_id_length=9,
    ),
    Dialect(
        "minimax",
        signs=("minimax:tool_call", "<invoke name="),
        triggers=("<minimax:tool_call>",),
        formats=(
            CallFormat(
                section_begin="<minimax:tool_call>\n",
                begin='<invoke name="',
                name_end='">\n',
                notation="tagged",
                parameters=ParameterTags('<parameter name="', '">', "</parameter>"),
                end="</invoke>",
                separator="\n",
                section_end="\n</minimax:tool_call>",
            ),
        ),
    ),
    Dialect(
        "seed",
        signs=("<seed:tool_call>", "<function="),
        triggers=("<seed:tool_call>",),
        formats=(
            CallFormat(
                begin="<seed:tool_call>\n<function=",
                name_end=">\n",
                notation="tagged",
                parameters=ParameterTags("<parameter=", ">", "</parameter>"),
                end="</function>\n</seed:tool_call>",
                separator="\n",
            ),
        ),
    ),
    Dialect(
        "glm-4.7",
        signs=("<tool_call>", "</arg_key><arg_value>"),
        triggers=("<tool_call>",),
        formats=(replace(_GLM, arguments_begin="", parameters=_GLM_COMPACT_PARAMETER, separator=""),),
    ),
    Dialect(
        "glm",
        signs=("<tool_call>", "<arg_key>", "<arg_value>"),
        triggers=("<tool_call>",),
        formats=(_GLM,),
    ),
    Dialect(
        "qwen-coder",
        signs=("<tool_call>", "<function=", "<parameter="),
        triggers=("<tool_call>", "<function="),
        formats=(
            _QWEN_CODER,
            replace(_QWEN_CODER, begin="<function=", end="</function>"),
            _HERMES,
        ),
    ),
    Dialect(
        "functionary",
        signs=("<function=", "</function>"),
        triggers=("<function=",),
        formats=(CallFormat(begin="<function=", name_end=">", end="</function>"),),
    ),
    Dialect(
        "kimi",
        signs=("<|tool_calls_section_begin|>", "<|tool_call_argument_begin|>"),
        triggers=("<|tool_calls_section_begin|>",),
        formats=(
            CallFormat(
                section_begin="<|tool_calls_section_begin|>",
                begin="<|tool_call_begin|>functions.",
                name_end=":",
                id_pattern="[0-9]+",
                arguments_begin="<|tool_call_argument_begin|>",
                end="<|tool_call_end|>",
                section_end="<|tool_calls_section_end|>",
            ),
        ),
    ),
    Dialect("hermes", signs=("<tool_call>",), triggers=("<tool_call>",), formats=(_HERMES,)),
    Dialect(
        "llama-3",
        signs=("<|start_header_id|>ipython", '"parameters"'),
        triggers=("<|python_tag|>",),
        formats=(
            _LLAMA_3,
            replace(_LLAMA_3, begin="<|python_tag|>"),
            CallFormat(begin="<|python_tag|>", name_end=".call(", notation="python", end=")"),
        ),
        is_bare=True,
        one_call=True,
    ),
)

GENERIC = Dialect("generic", triggers=("<tool_call>",), formats=(_HERMES,), is_native=False)
"""For a template without tools or with an unknown notation: inferd describes the tools in the system prompt and asks
for calls in the notation of Hermes, which most models have seen."""

_REASONING = (
    (("<|channel>thought", "<channel|>"), ReasoningTags("<|channel>thought\n", "<channel|>")),
    (("[THINK]", "[/THINK]"), ReasoningTags("[THINK]", "[/THINK]")),
    (("<seed:think>", "</seed:think>"), ReasoningTags("<seed:think>", "</seed:think>")),
    (("</think>",), ReasoningTags("<think>", "</think>")),
)


def detect_dialect(template: str) -> Dialect:
    """Return the family of a template with its reasoning tags; GENERIC if none is detected."""
    family = next((family for family in FAMILIES if all(sign in template for sign in family.signs)), GENERIC)
    return with_reasoning(family, template)


def with_reasoning(family: Dialect, template: str) -> Dialect:
    """Return `family` with the reasoning tags of the template."""
    tags = next((tags for signs, tags in _REASONING if all(sign in template for sign in signs)), None)
    return family if family.channels else replace(family, reasoning=tags)
