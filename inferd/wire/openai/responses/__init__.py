"""OpenAI's Responses API, as a translation: its requests become chat requests, answers' deltas its items and events."""
