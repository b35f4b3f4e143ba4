"""Messages between a process and its child over a socket: facts as JSON, and bytes.

Each is its length in 8 bytes and then its bytes. The parent trusts nothing of the child: it waits
neither for it to read nor for the rest of a message, and keeps no more of one than is allowed.
"""

from __future__ import annotations

import json
import select
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_LENGTH = struct.Struct("<Q")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Message:
    """``facts``: of JSON. ``parts``: e.g. the bytes of a file."""

    facts: dict[str, Any]
    parts: tuple[bytes, ...] = ()

    def dump(self) -> bytes:
        head = json.dumps([self.facts, [len(part) for part in self.parts]]).encode()
        return b"".join([_LENGTH.pack(len(head)), head, *self.parts])

    @classmethod
    def load(cls, data: bytes) -> Message:
        """The inverse of :meth:`dump`.

        Raises:
            ValueError: it was not written by :meth:`dump`.
        """
        view, parts = memoryview(data), []
        end = _LENGTH.size + int.from_bytes(view[: _LENGTH.size], "little")
        try:
            facts, sizes = json.loads(bytes(view[_LENGTH.size : end]))
        except (TypeError, RecursionError) as error:
            raise ValueError("not a message") from error
        if not isinstance(facts, dict) or not _are_sizes(sizes, total=len(data) - end):
            raise ValueError("not a message")
        for size in sizes:
            parts.append(bytes(view[end : end + size]))
            end += size
        return cls(facts, tuple(parts))


def _are_sizes(sizes: Any, *, total: int) -> bool:
    if not isinstance(sizes, list) or any(type(size) is not int or size < 0 for size in sizes):
        return False
    return sum(sizes) == total


class Channel:
    """The end of the parent.

    Args:
        end: of a pair of sockets.
        max_bytes: of a message of the child.
    """

    def __init__(self, end: socket.socket, *, max_bytes: int) -> None:
        end.setblocking(False)
        self._socket, self._max_bytes = end, max_bytes
        self._unsent = memoryview(b"")
        self._received = bytearray()

    def post(self, data: bytes) -> None:
        """To be sent by :meth:`step`."""
        self._unsent = memoryview(_LENGTH.pack(len(data)) + data)

    def step(self, wait_s: float) -> Message | None:
        """Send and receive a part; the next message of the child once it is complete.

        Args:
            wait_s: how long to wait for the child to send or to read anything.

        Raises:
            EOFError: the child has closed its end.
            OSError: likewise.
            ValueError: it has sent something else than a message, or too long a one.
        """
        found = self._taken()
        if found is not None:
            return found
        poll = select.poll()  # select.select takes no descriptor above 1023
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        for _, events in poll.poll(wait_s * 1000):
            with suppress(BlockingIOError):
                if events & ~select.POLLOUT:
                    self._receive()
                if events & select.POLLOUT:
                    sent = self._socket.send(self._unsent[:_CHUNK])
                    self._unsent = self._unsent[sent:]
        return self._taken()

    def close(self) -> None:
        """The child sees the end of its messages."""
        self._socket.close()

    def _receive(self) -> None:
        data = self._socket.recv(_CHUNK)
        if not data:
            raise EOFError
        self._received += data

    def _taken(self) -> Message | None:
        start = _LENGTH.size
        if len(self._received) < start:
            return None
        (size,) = _LENGTH.unpack_from(self._received)
        if size > self._max_bytes:
            raise ValueError(f"a message of {size} bytes")
        if len(self._received) < start + size:
            return None
        data = bytes(memoryview(self._received)[start : start + size])
        del self._received[: start + size]
        return Message.load(data)


def send(end: socket.socket, message: Message) -> None:
    """As the child: waits until the parent has read it."""
    data = message.dump()
    end.sendall(_LENGTH.pack(len(data)))
    end.sendall(data)


def receive(end: socket.socket) -> bytes:
    """As the child: the bytes of the next message.

    Raises:
        EOFError: the parent is gone.
    """
    (size,) = _LENGTH.unpack(_exactly(end, _LENGTH.size))
    return _exactly(end, size)


def _exactly(end: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        num = end.recv_into(view)
        if not num:
            raise EOFError
        view = view[num:]
    return bytes(data)
