"""PNG: chunks, completeness of rows, and writing of 16-bit colour.

Portable Network Graphics specification, third edition.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# samples per pixel by colour type
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# first column, first row, step across, step down of the passes of Adam7
_ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
# signature, and the header with length, kind and checksum
_AFTER_HEADER = 8 + 25
_STRIPS, _STRIP_ROWS = 3, 16


def strategy_for(samples: npt.NDArray[Any]) -> int:
    """The zlib strategy for these (H, W[, C]) samples.

    Photographs have few repetitions other than runs: with ``Z_RLE`` an enhanced LoL image takes a
    tenth of the time and 97 % of the size. Files of text and graphics would be several times as
    large, so both strategies are tried on three strips of the image.
    """
    height = len(samples)
    starts = {height * n // (_STRIPS + 1) for n in range(1, _STRIPS + 1)}
    rows = np.concatenate([samples[start : start + _STRIP_ROWS] for start in sorted(starts)])
    data = _sub_filtered(rows)
    packer = zlib.compressobj(strategy=zlib.Z_RLE)
    runs = len(packer.compress(data) + packer.flush())
    says_nothing = runs < len(data) // 50  # empty strips
    if says_nothing or runs > 1.05 * len(zlib.compress(data, 1)):
        return zlib.Z_DEFAULT_STRATEGY
    return zlib.Z_RLE


def _sub_filtered(samples: npt.NDArray[Any]) -> bytes:
    """Rows with the filter Sub: a filter byte, then differences to the pixel on the left."""
    bytes_a_pixel = samples[0, 0].nbytes
    rows = samples.reshape(len(samples), -1)
    rows = rows.astype(">u2").view(np.uint8) if rows.dtype == np.uint16 else rows
    filtered = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 1
    filtered[:, 1:] = rows
    filtered[:, 1 + bytes_a_pixel :] -= rows[:, :-bytes_a_pixel]
    return filtered.tobytes()


def write_16_bit(samples: npt.NDArray[np.uint16]) -> bytes:
    """(H, W) grey or (H, W, 2 | 3 | 4) -> a file; Pillow writes only grey ones."""
    height, width = samples.shape[:2]
    num_channels = samples.size // (height * width)
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[num_channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    packer = zlib.compressobj(strategy=strategy_for(samples))
    packed = packer.compress(_sub_filtered(samples)) + packer.flush()
    return SIGNATURE + pack([(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")])


def pack(chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Chunks as bytes of a file, with lengths and checksums."""
    return b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def with_chunks(data: bytes, chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The file with these chunks after its header."""
    return data[:_AFTER_HEADER] + pack(chunks) + data[_AFTER_HEADER:]


@dataclass(frozen=True)
class Header:
    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool

    @property
    def num_bytes(self) -> int:
        """Of all rows with their filter bytes."""
        bits = self.depth * _CHANNELS[self.colour]
        total = 0
        for left, top, across, down in _ADAM7 if self.interlaced else ((0, 0, 1, 1),):
            columns, rows = -(-(self.width - left) // across), -(-(self.height - top) // down)
            if columns > 0 and rows > 0:
                total += rows * (1 + -(-columns * bits // 8))
        return total


@dataclass(frozen=True)
class Chunk:
    """One chunk with its stored checksum."""

    kind: bytes
    body: bytes
    checksum: bytes

    @property
    def intact(self) -> bool:
        return self.checksum == struct.pack(">I", zlib.crc32(self.body, zlib.crc32(self.kind)))

    @property
    def ancillary(self) -> bool:
        """Not needed to decode the image (bit 5 of the first letter)."""
        return bool(self.kind[0] & 32)

    @property
    def safe_to_copy(self) -> bool:
        """Does not depend on the samples (bit 5 of the last letter)."""
        return bool(self.kind[3] & 32)


def read_header(data: bytes) -> Header:
    """The header, which is the first chunk.

    Raises:
        ValueError: it is missing or invalid.
    """
    first = next(read_chunks(data), None)
    if first is None or first.kind != b"IHDR" or len(first.body) != 13 or not first.intact:
        raise ValueError("its header is damaged")
    width, height, depth, colour, method, filters, interlaced = struct.unpack(
        ">IIBBBBB", first.body
    )
    if not width or not height or depth not in _DEPTHS.get(colour, ()) or method or filters:
        raise ValueError("its header says what no PNG can be")
    return Header(width, height, depth, colour, bool(interlaced))


def read_chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks as far as they exist, up to IEND."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        checksum = data[at + 8 + length : at + 12 + length]
        if len(checksum) < 4:
            return
        yield Chunk(kind, body, checksum)
        if kind == b"IEND":
            return
        at += 12 + length
