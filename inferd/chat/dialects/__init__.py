"""Dialects of reasoning and tool calls, one a family of models: specifications as data, one streaming parser, grammars.

The text of the model's own chat template decides the dialect, never the model's name.
"""
