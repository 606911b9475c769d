"""`python command_child.py MODULE FUNCTION`: runs the command line in a forked process for each line of stdin.

A line is a JSON list of arguments, the answer a JSON object of `status`, `stdout` and `stderr`. A fork of a process
that has imported the modules of all commands starts in a fifth of the time of a new process.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import NoReturn

IMPORTING = (
    ("keys", "create", "--help"),
    ("teams", "create", "a"),
    ("usage", "--json"),
    ("audit", "--json"),
    ("models", "list"),
)
"""Commands on a ledger of their own, which import the modules of all commands."""


def import_all(main: Callable[[], int]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        for arguments in IMPORTING:
            sys.argv = ["inferd", *arguments, "--data-dir", folder]
            with contextlib.suppress(SystemExit):
                main()


def end(main: Callable[[], int]) -> NoReturn:
    """Run the command and exit without the interpreter's shutdown, which takes longer than a command."""
    status: object = 0
    try:
        status = main()
    except SystemExit as error:
        status = error.code
    except BaseException:  # noqa: BLE001 like the interpreter, which ends with a traceback
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if isinstance(status, str):
        os.write(2, status.encode())
    os._exit(status if isinstance(status, int) else int(status is not None))


def run(module: str, function: str) -> None:
    main = getattr(importlib.import_module(module), function)
    import_all(main)
    for line in sys.stdin:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if child == 0:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.argv = ["inferd", *json.loads(line)]
                end(main)
            _, status = os.waitpid(child, 0)
            out.seek(0)
            err.seek(0)
            answer = {"status": os.waitstatus_to_exitcode(status), "stdout": out.read().decode()}
            sys.stdout.write(json.dumps(answer | {"stderr": err.read().decode()}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    run(*sys.argv[1:])
