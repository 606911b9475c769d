"""HTTP: Starlette and nothing below it knows of it."""
