"""`inferd serve`: the command; what it runs is composed in composition.py."""

from __future__ import annotations

import faulthandler
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from inferd.config.models_file import data_dir, default_config_path, load_config


def serve(
    config: Annotated[
        Path | None, typer.Option(help="models.toml to serve; else the one in this folder, else the one shipped.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Folder of the ledger; else $INFERD_DATA_DIR, else the XDG data folder."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve the models of models.toml as an OpenAI API.

    The first start in an empty data folder makes team `default` with one API key and shows it; later ones name the
    file that keeps it. Ctrl-C, SIGTERM and a closed terminal (SIGHUP) let running requests end (at most 30 s); a
    second Ctrl-C does not wait.

    Example: inferd serve --port 8080
    """
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)  # a crash in native code leaves a traceback that names the model's file
    logging.basicConfig(level=_level(log_level), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Its warnings are about what clients send; anybody could fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    # Heavy, and needed by no other command.
    from inferd.cli.composition import run

    run(load_config(default_config_path(config)), data_dir(data), host, port)


def _level(name: str) -> int:
    levels = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
    if name not in levels:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(levels)}", param_hint="--log-level")
    return levels[name]
