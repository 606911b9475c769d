"""`capabilities` of a model as Anthropic's `GET /v1/models` shows them. Its SDK expects every key."""

from __future__ import annotations

import msgspec


class Support(msgspec.Struct, frozen=True):
    supported: bool = False


NO, YES = Support(), Support(supported=True)


class ContextManagement(msgspec.Struct, frozen=True):
    """Edits of the context by the server, of which there are none."""

    supported: bool = False
    clear_thinking_20251015: Support | None = None
    clear_tool_uses_20250919: Support | None = None
    compact_20260112: Support | None = None


class Effort(msgspec.Struct, frozen=True):
    """Levels of `output_config.effort` that the chat template tells apart."""

    supported: bool
    low: Support
    medium: Support
    high: Support
    xhigh: Support = NO
    max: Support = NO


class ServerTools(msgspec.Struct, frozen=True):
    """Tools that the server runs, of which there are none."""

    supported: bool = False
    code_execution: Support = NO
    web_search: Support = NO


class ThinkingTypes(msgspec.Struct, frozen=True):
    """Values of `thinking.type` that have an effect. `disabled` is never refused, also without reasoning."""

    adaptive: Support
    enabled: Support
    between_tools: Support = NO
    disabled: Support = YES


class Thinking(msgspec.Struct, frozen=True):
    supported: bool
    types: ThinkingTypes


class ModelCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """Capabilities of one deployment; prompts are text only. Batches are OpenAI's, not Anthropic's."""

    batch: Support = NO
    citations: Support = NO
    code_execution: Support = NO
    context_management: ContextManagement = ContextManagement()
    effort: Effort
    image_input: Support = NO
    pdf_input: Support = NO
    server_tools: ServerTools = ServerTools()
    structured_outputs: Support
    thinking: Thinking


def model_capabilities(*, thinks: bool, efforts: tuple[str, ...], structured: bool) -> ModelCapabilities:
    """Return the capabilities of a deployment.

    Args:
        thinks: whether answers may hold reasoning.
        efforts: levels of reasoning that the chat template tells apart.
        structured: whether answers can be bound to a schema.
    """
    levels = Support("low" in efforts)  # a template with a switch alone has no levels
    return ModelCapabilities(
        effort=Effort(levels.supported, levels, levels, levels),
        structured_outputs=Support(structured),
        thinking=Thinking(thinks, ThinkingTypes(Support(thinks), Support(thinks))),
    )
