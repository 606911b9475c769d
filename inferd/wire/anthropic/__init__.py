"""Anthropic's Messages API, as a translation: its requests become chat requests, answers' deltas its content blocks.

https://platform.claude.com/docs/en/api/messages
"""
