"""Image resource blocks (8BIM), in which JPEG and TIFF store IPTC."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_IPTC, _THUMBNAILS = 0x0404, {0x0409, 0x040C}


def _blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each block, as far as they can be read; the rest under number -1."""
    at = 0
    while at + 12 <= len(data) and data[at : at + 4] in (b"8BIM", b"PHUT", b"AgHg", b"DCSR"):
        (number,) = struct.unpack_from(">H", data, at + 4)
        name = 1 + data[at + 6]
        body = at + 6 + name + name % 2
        if body + 4 > len(data):
            break
        (size,) = struct.unpack_from(">I", data, body)
        after = body + 4 + size + size % 2
        if body + 4 + size > len(data):
            break
        yield number, data[at:after]
        at = after
    if data[at:].strip(b"\0"):
        yield -1, data[at:]


def without_thumbnails(data: bytes) -> tuple[bytes, bool]:
    """The blocks without thumbnails, and whether there was one."""
    blocks = list(_blocks(data))
    if not any(number in _THUMBNAILS for number, _ in blocks):
        return data, False
    return b"".join(block for number, block in blocks if number not in _THUMBNAILS), True


def with_iptc(data: bytes | None, iptc: bytes | None) -> bytes | None:
    """The blocks with these IPTC records, unless they have some."""
    if not iptc or any(number == _IPTC for number, _ in _blocks(data or b"")):
        return data
    block = b"8BIM" + struct.pack(">HHI", _IPTC, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    return block + (data or b"")
