"""Anthropic's Messages API, translated: requests become chat requests, deltas of an answer become content blocks.

https://platform.claude.com/docs/en/api/messages
"""
