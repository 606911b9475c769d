"""The command line: one file per noun; `serve` composes everything. Nothing but typer's declarations at import."""
