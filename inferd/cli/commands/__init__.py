"""Commands of the CLI, one file a noun."""
