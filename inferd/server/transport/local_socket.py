"""UNIX socket of a running server, for commands of the same user.

The socket belongs to the data folder and has mode 600. A connection on it acts for the operator: it may call the admin
API without a key. The module has both ends and imports only the standard library, as commands import it.
"""

from __future__ import annotations

import logging
import os
import pwd
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OPERATOR = "operator"
"""Key of `scope["state"]` with the actor of a request that came through the socket. Only `LocalProtocol` sets it."""
MAX_PATH_BYTES = 107 if hasattr(socket, "SO_PEERCRED") else 103
"""Room for a path in sockaddr_un, without its NUL: 108 bytes on Linux, 104 on BSD and macOS."""
ANSWER_TIMEOUT_S = 10.0

_BACKLOG = 16
_PRIVATE_UMASK = 0o177
_PEER_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid

logger = logging.getLogger(__name__)


def socket_path(data_dir: Path) -> Path:
    return data_dir / "server.sock"


@contextmanager
def local_listener(data_dir: Path) -> Iterator[socket.socket | None]:
    """Listen on the socket of the data folder, whose lock the process holds; remove the socket at the end.

    A socket file of a killed server is replaced. Yield None, with a warning in the log, if the socket cannot be bound:
    the server works without it.
    """
    path = socket_path(data_dir)
    listener = _bind(path)
    try:
        yield listener
    finally:
        if listener is not None:
            listener.close()
            path.unlink(missing_ok=True)


def _bind(path: Path) -> socket.socket | None:
    num_bytes = len(os.fsencode(path))
    if num_bytes > MAX_PATH_BYTES:
        logger.warning(
            "%s: the path has %d bytes, and a socket's path at most %d: commands cannot reach the running server; "
            "choose a --data-dir with a shorter path",
            path,
            num_bytes,
            MAX_PATH_BYTES,
        )
        return None
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mask applies to the whole process, which has no other threads yet.
    mask = os.umask(_PRIVATE_UMASK)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        logger.warning("%s: %s: commands cannot reach the running server", path, error.strerror)
        return None
    finally:
        os.umask(mask)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def actor_of(uid: int) -> str:
    """Return the actor for the audit log: `cli:alice`, or `cli:1000` if the user has no name."""
    try:
        return f"cli:{pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"cli:{uid}"


def peer_actor(connection: socket.socket) -> str:
    """Return the actor at the other end of a connection on the socket: this user, or root."""
    if not hasattr(socket, "SO_PEERCRED"):
        return actor_of(os.getuid())
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _, uid, _ = _PEER_CREDENTIALS.unpack(credentials)
    return actor_of(uid)


def ask_server(data_dir: Path, method: str, path: str) -> tuple[int, bytes] | None:
    """Send a request to the server of the data folder, and return status and body of its answer.

    Return None if no server listens on the socket.

    Raises:
        TimeoutError: the server did not answer within ANSWER_TIMEOUT_S.
    """
    from http.client import HTTPConnection  # slow to import, and most commands need no server

    file = socket_path(data_dir)
    if len(os.fsencode(file)) > MAX_PATH_BYTES:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_TIMEOUT_S)
        try:
            connection.connect(str(file))
            http = HTTPConnection("localhost")
            http.sock = connection
            http.request(method, path)
            answer = http.getresponse()
            return answer.status, answer.read()
        except (FileNotFoundError, ConnectionError, PermissionError):
            return None
