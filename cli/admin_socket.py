"""HTTP with JSON over a unix socket in the state folder, whatever the length of its path.

A unix socket's address holds 107 bytes; binding below /proc/self/fd/N, N being the opened folder, makes any path short enough.
"""

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import msgspec
import trio

from cli import access_calls
from cluster import admin
from cluster.errors import ConfigError, ExistsError, NotFoundError, QuorumError, UnavailableError
from cluster.node import Node
from s3.messages import RequestBody, RequestHead, Response

NAME = "admin.sock"
_MAX_ARGUMENTS = 128 * 1024  # a policy, with room for its escapes


class AdminHandler:
    """s3.messages.Handler for operators. Who can open the socket is an operator: the folder has mode 0700."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def handle(self, head: RequestHead, body: RequestBody) -> Response:
        """See s3.messages.Handler."""
        query = {name: values[0] for name, values in parse_qs(head.query.decode()).items()}
        try:
            call = access_calls.CALLS.get((head.method, head.path))
            if call is not None:
                return _json(200, await call(self._node, query | await _arguments(body)))
            if head.method == "GET" and head.path == b"/cluster/status":
                return _json(200, await admin.cluster_status(self._node))
            if head.method == "GET" and head.path == b"/object":
                return _json(
                    200,
                    await admin.inspect_object(
                        self._node, query.get("bucket", ""), query.get("key", "")
                    ),
                )
        except NotFoundError as error:
            return _json(404, {"error": str(error)})
        except ConfigError as error:
            return _json(400, {"error": str(error)})
        except ExistsError as error:
            return _json(409, {"error": str(error)})
        except QuorumError as error:
            changed = "; nothing was changed" if head.method == "POST" else ""
            return _json(503, {"error": f"{error}{changed}"})
        except UnavailableError as error:
            return _json(503, {"error": str(error)})
        except Exception as error:  # noqa: BLE001 - one question of an operator must not end the node
            return _json(500, {"error": f"{type(error).__name__}: {error}"})
        return _json(404, {"error": "no such admin call"})

    def refuse(self, remote: str, status: int, code: str, message: str) -> Response:
        """See s3.messages.Handler."""
        del remote, code
        return _json(status, {"error": message})


async def _arguments(body: RequestBody) -> dict[str, str]:
    """What a command sends along. Raises ConfigError."""
    data, buffer = b"", bytearray(16 * 1024)
    while count := await body.readinto(memoryview(buffer)):
        data += buffer[:count]
        if len(data) > _MAX_ARGUMENTS:
            raise ConfigError(f"more than {_MAX_ARGUMENTS} bytes cannot be taken")
    try:
        return msgspec.json.decode(data, type=dict[str, str]) if data else {}
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"the arguments cannot be read: {error}") from error


def _json(status: int, content: Any) -> Response:
    return Response(
        status=status,
        headers=[(b"Content-Type", b"application/json")],
        body=json.dumps(content).encode() + b"\n",
    )


@contextlib.contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """A short path of the admin socket, valid inside the block."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{NAME}"
    finally:
        os.close(fd)


async def listen(folder: Path) -> trio.SocketListener:
    """The listener; a socket file that a dead process left is replaced (the drives' locks tell dead from alive)."""
    (folder / NAME).unlink(missing_ok=True)
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with short_path(folder) as path:
        await sock.bind(path)
    (folder / NAME).chmod(0o600)
    sock.listen(16)
    return trio.SocketListener(sock)


class AdminError(Exception):
    """The node said no. `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, folder: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._folder = folder

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with short_path(self._folder) as path:
            self.sock.connect(path)


def ask(folder: Path, path: str, **query: str) -> Any:
    """Ask the node of a state folder. Raises OSError where none answers, AdminError where it says no."""
    text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return _exchange(folder, "GET", f"{path}?{text}" if text else path, None)


def tell(folder: Path, path: str, **arguments: str) -> Any:
    """Have the node of a state folder change something. Raises like `ask`."""
    return _exchange(folder, "POST", path, json.dumps(arguments))


def _exchange(folder: Path, method: str, target: str, body: str | None) -> Any:
    connection = _UnixConnection(folder)
    try:
        connection.request(method, target, body)
        answer = connection.getresponse()
        content = json.loads(answer.read())
    finally:
        connection.close()
    if answer.status != 200:
        raise AdminError(answer.status, content["error"])
    return content
