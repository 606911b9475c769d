"""Ollama's API, translated: requests become chat requests, deltas of an answer become lines of JSON.

https://github.com/ollama/ollama/blob/main/docs/api.md
"""
