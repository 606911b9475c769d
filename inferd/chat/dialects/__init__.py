"""How families of models write reasoning and tool calls: a table of specifications, one streaming parser, grammars.

A dialect is found by the text of the model's own chat template, never by the model's name.
"""
