"""Families of templates: the parser reads a rendered message of the assistant back as that message."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from inferd.chat.dialects.answer_parser import answer_parser
from inferd.chat.dialects.families import FAMILIES, detect_dialect
from inferd.chat.traits import answer_text, probe_template
from tests.chat.dialects.corpus import TEMPLATES, read, rendered, template_of, until_its_end


@dataclass(frozen=True)
class Template:
    """Expected family of a template, and the message that it renders."""

    name: str
    family: str
    content: bool = True
    reasoning: bool = False
    describes: bool = True
    parallel: bool = True


TEMPLATE_LIST = (
    Template("Qwen-Qwen2.5-7B-Instruct", "hermes"),
    Template("Qwen-Qwen3-0.6B", "hermes", reasoning=True),
    Template("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "hermes", content=False),
    Template("ibm-granite-granite-4.0", "hermes"),
    Template("Qwen3-Coder", "qwen-coder"),
    Template("Qwen3.5-4B", "qwen-coder", reasoning=True),
    Template("meta-llama-Llama-3.1-8B-Instruct", "llama-3", content=False, parallel=False),
    Template("meta-llama-Llama-3.2-3B-Instruct", "llama-3", content=False, parallel=False),
    Template("mistralai-Mistral-Nemo-Instruct-2407", "mistral-array", content=False),
    Template("Mistral-Small-3.2-24B-Instruct-2506", "mistral-call-id", content=False),
    Template("unsloth-mistral-Devstral-Small-2507", "mistral-named"),
    Template("mistralai-Ministral-3-14B-Reasoning-2512", "mistral-named"),
    Template("openai-gpt-oss-120b", "gpt-oss", content=False, reasoning=True, parallel=False),
    Template("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "deepseek-r1", content=False, describes=False),
    Template("deepseek-ai-DeepSeek-V3.1", "deepseek-v3.1", describes=False),
    Template("google-gemma-4-31B-it", "gemma-4", content=False, reasoning=True),
    Template("GLM-4.6", "glm", reasoning=True),
    Template("GLM-4.7-Flash", "glm-4.7", reasoning=True),
    Template("ByteDance-Seed-OSS", "seed", reasoning=True),
    Template("MiniMax-M2", "minimax", reasoning=True),
    Template("meetkai-functionary-medium-v3.1", "functionary"),
    Template("moonshotai-Kimi-K2", "kimi"),
)
GENERIC = ("google-gemma-2-2b-it", "microsoft-Phi-3.5-mini-instruct")
NO_TEMPLATE_KNOWN = {"function-gemma"}  # its format is read from a sample in test_answer_parser.py

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "exact": {"type": "boolean"},
        "options": {"type": "object"},
    },
    "required": ["city"],
}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": SCHEMA}}]
PARAMETERS = {"get_weather": SCHEMA}
USER = {"role": "user", "content": "What's the weather?"}
CALLS = (
    {"city": 'Saint-Étienne "} </tool_call', "days": 3, "exact": True, "options": {"units": ["C", "}]"], "deep": {}}},
    {"city": "12"},
)


def message(n_calls: int, *, content: str = "", reasoning: str = "", as_text: bool = False) -> dict:
    calls = [
        {
            "id": f"call0000{number}",
            "type": "function",
            "function": {"name": "get_weather", "arguments": json.dumps(arguments) if as_text else arguments},
        }
        for number, arguments in enumerate(CALLS[:n_calls])
    ]
    thoughts = {"reasoning_content": reasoning, "thinking": reasoning} if reasoning else {}
    return {"role": "assistant", "content": content, "tool_calls": calls, **thoughts}


def written(template: Template, assistant: dict) -> str:
    """Return the text with which a model would have written the rendered message."""
    dialect = detect_dialect(template_of(template.name).source)
    variables = {"tools": TOOLS, "enable_thinking": template.reasoning}
    prompt = rendered(template.name, [USER], **variables)
    conversation = rendered(template.name, [USER, assistant], add_generation_prompt=False, **variables)
    return until_its_end(answer_text(conversation, prompt, dialect))


def expected(template: Template, n_calls: int, *, content: str = "", reasoning: str = "") -> dict:
    return {
        "content": content,
        "reasoning": reasoning,
        "calls": [("get_weather", arguments) for arguments in CALLS[:n_calls]],
    }


def with_values(answer: dict) -> dict:
    return answer | {"calls": [(name, json.loads(text)) for name, text in answer["calls"]]}


def test_corpus_has_a_template_for_every_family():
    listed = {template.name for template in TEMPLATE_LIST} | set(GENERIC)
    assert listed == {path.stem for path in TEMPLATES.glob("*.jinja")}
    assert {template.family for template in TEMPLATE_LIST} | NO_TEMPLATE_KNOWN == {family.name for family in FAMILIES}


@pytest.mark.parametrize("template", TEMPLATE_LIST, ids=lambda template: template.name)
def test_family_is_detected_from_the_template(template):
    dialect = detect_dialect(template_of(template.name).source)
    traits = probe_template(template_of(template.name), dialect)
    assert (dialect.name, traits.writes_calls, traits.describes_tools) == (template.family, True, template.describes)
    assert template.parallel != dialect.one_call


@pytest.mark.parametrize("name", GENERIC)
def test_template_without_tools_has_the_generic_dialect(name):
    dialect = detect_dialect(template_of(name).source)
    traits = probe_template(template_of(name), dialect)
    assert (dialect.name, traits.writes_calls, traits.describes_tools) == ("generic", False, False)
    assert traits.takes_system == ("Phi" in name)


@pytest.mark.parametrize(
    ("template", "n_calls"),
    [
        pytest.param(template, n_calls, id=f"{template.name}-{n_calls}")
        for template in TEMPLATE_LIST
        for n_calls in ((1, 2) if template.parallel else (1,))
    ],
)
def test_parser_reads_the_calls_that_the_template_renders(template, n_calls):
    content = "Let me look." if template.content else ""
    reasoning = "They ask for\n\nthe weather." if template.reasoning else ""
    text = written(template, message(n_calls, content=content, reasoning=reasoning))
    dialect = detect_dialect(template_of(template.name).source)
    opened = dialect.reasoning is not None and bool(reasoning) and dialect.reasoning.begin.strip() not in text
    wholes = [
        with_values(read(answer_parser(dialect, PARAMETERS, in_reasoning=opened), text, size))
        for size in range(1, len(text) + 1)
    ]
    assert wholes[-1] == expected(template, n_calls, content=content, reasoning=reasoning), text
    assert all(whole == wholes[-1] for whole in wholes), "the pieces that it comes in change the answer"
