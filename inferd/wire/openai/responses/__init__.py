"""OpenAI's Responses API, translated: requests become chat requests, deltas of an answer become items and events."""
