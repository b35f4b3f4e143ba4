"""What a stranger on the same host gets from a server: asks every port without credentials."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from mirnet.storage.s3server import shell_argv

# a client's first bytes of HTTP/2, and an empty SETTINGS frame: any gRPC server answers with its
# own SETTINGS (type 4)
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_WRONG_PROTOCOL = b"Client sent an HTTP request to an HTTPS server."
_WAIT_S = 3.0
NOBODY = 65534


@dataclass(frozen=True, order=True)
class Port:
    """A listening socket."""

    host: str
    number: int
    process: str


@dataclass(frozen=True)
class Answer:
    """Of an HTTP server that let us speak."""

    status: int
    body: bytes


def listening(processes: Iterable[psutil.Process]) -> list[Port]:
    """All TCP ports of these processes, whatever the server says about itself."""
    found = set()
    for process in processes:
        try:
            name = process.name()
            sockets = process.net_connections(kind="tcp")
        except psutil.Error:
            continue
        found |= {Port(s.laddr.ip, s.laddr.port, name) for s in sockets if s.status == "LISTEN"}
    return sorted(found)


def children_of(process: psutil.Process) -> list[psutil.Process]:
    """All below it; none where it has ended."""
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def ask(port: Port, path: str, *, tls: bool = False, method: str = "GET") -> Answer | None:
    """An HTTP request from nobody; none where the server does not talk to us."""
    host = "127.0.0.1" if port.host in ("0.0.0.0", "::") else port.host
    connection: http.client.HTTPConnection
    if tls:
        connection = http.client.HTTPSConnection(
            host, port.number, timeout=_WAIT_S, context=_stranger()
        )
    else:
        connection = http.client.HTTPConnection(host, port.number, timeout=_WAIT_S)
    try:
        connection.request(method, path, headers={"Origin": "http://evil.example"})
        answer = connection.getresponse()
        body = answer.read(4000)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    if answer.status == 400 and body.strip() == _WRONG_PROTOCOL:
        return None
    return Answer(answer.status, body)


def speaks_grpc(port: Port, *, tls: bool) -> bool:
    """Whether the server opens an HTTP/2 session for a client without a certificate."""
    host = "127.0.0.1" if port.host in ("0.0.0.0", "::") else port.host
    try:
        with socket.create_connection((host, port.number), timeout=_WAIT_S) as plain:
            if not tls:
                return _opens_session(plain)
            context = _stranger()
            context.set_alpn_protocols(["h2"])
            with context.wrap_socket(plain) as wrapped:
                return _opens_session(wrapped)
    except OSError:
        return False


def _opens_session(connection: socket.socket) -> bool:
    connection.sendall(_HTTP2)
    return connection.recv(9)[3:4] == b"\x04"


def _stranger() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def weed_shell(program: str, ports: Mapping[str, int], *commands: str, keys: Path | None) -> str:
    """What SeaweedFS's shell prints; without keys as the account nobody, if we may become it."""
    stranger = keys is None and os.geteuid() == 0
    process = subprocess.Popen(
        shell_argv(program, ports, keys=keys),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd="/",
        env={"HOME": "/nonexistent"},
        user=NOBODY if stranger else None,
        group=NOBODY if stranger else None,
        extra_groups=[] if stranger else None,
    )
    try:
        # it waits for ever for a master that does not talk to it
        return process.communicate("\n".join([*commands, "exit", ""]), timeout=5)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def private(folder: Path) -> list[str]:
    """Files and folders in a folder that somebody else could reach, the folder included."""
    if folder.stat().st_mode & 0o077 == 0:
        return []
    everything = [folder, *folder.rglob("*")]
    return [str(path) for path in everything if path.lstat().st_mode & 0o077]
