"""`inferd serve`, the command."""

from __future__ import annotations

import faulthandler
import logging
import sys
from typing import Annotated

import typer

from inferd.cli.options import ConfigFile, DataDir
from inferd.config import data_dir, default_config_path, load_config


def serve(
    config: ConfigFile = None,
    data: DataDir = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    ollama_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65535,
            help="Further port on 127.0.0.1 for clients of Ollama, whose own is 11434; 0 takes a free one.",
            show_default="none",
        ),
    ] = None,
    log_level: Annotated[
        str, typer.Option(metavar="LEVEL", help="Least level of log lines: debug, info, warning or error.")
    ] = "info",
) -> None:
    """Serve the models of models.toml over HTTP.

    The first start in an empty data folder creates team `default` and an API key, which is kept in the file
    `default.key` of the folder. Ctrl-C, SIGTERM and a closed terminal (SIGHUP) stop the server: running requests get at
    most 30 s to end. A second Ctrl-C stops it at once.

    ```console
    $ inferd serve --port 8080
    ```
    """
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)  # a crash in native code leaves a traceback that names the model's file
    logging.basicConfig(level=_level(log_level), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Its warnings are about malformed requests, with which any client could fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    # Imports llama.cpp and Starlette.
    from inferd.cli.composition import run

    run(load_config(default_config_path(config)), data_dir(data), host, port, ollama_port)


def _level(name: str) -> int:
    levels = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
    if name not in levels:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(levels)}", param_hint="--log-level")
    return levels[name]
