"""Sizes of zlib streams in bounded memory; decoders fill what is missing and skip checksums."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from itertools import chain

_PIECE = 1 << 20


def inflated_size(pieces: Iterable[bytes], most: int) -> tuple[int, bool]:
    """Bytes that a stream unpacks to, and whether its end was reached.

    Args:
        pieces: the stream; what comes after its end is ignored.
        most: bytes after which the rest is not unpacked.

    Raises:
        zlib.error: not a zlib stream, or a wrong checksum.
    """
    inflate, found = zlib.decompressobj(), 0
    for piece in chain(pieces, [b""]):  # at last what zlib still holds
        while not inflate.eof and found <= most:
            unpacked = len(inflate.decompress(piece, _PIECE))
            found += unpacked
            piece = inflate.unconsumed_tail
            if not piece and unpacked < _PIECE:
                break
    return found, inflate.eof
