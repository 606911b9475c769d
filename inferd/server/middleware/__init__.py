"""ASGI middleware: checks and headers of every request."""
