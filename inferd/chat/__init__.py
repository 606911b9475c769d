"""Chat with a model: messages to a prompt by its chat template, and its text to content, reasoning and tool calls."""
