"""Commands that run and care for the server."""
