"""The wire: OpenAI's requests, responses and chat templates as typed, pure data. Knows no engine, ledger or socket."""
