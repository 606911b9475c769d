"""OpenAI's API: requests as checked structs, responses and events as structs that are encoded to JSON."""
