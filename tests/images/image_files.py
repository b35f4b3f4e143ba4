"""Files of every kind, made byte by byte where no writer makes them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import PIL.Image


def photograph(height: int = 160, width: int = 200) -> np.ndarray:
    """(H, W, 3) uint8: smooth with noise, so that a JPEG of it holds data in every block."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(y / 19 + c) + np.cos(x / 23 - c) for c in range(3)]
    noise = np.random.default_rng(0).normal(0, 12, (height, width, 3))
    return np.clip(np.stack(waves, axis=2) * 50 + 110 + noise, 0, 255).astype(np.uint8)


def saved(picture: PIL.Image.Image, format: str = "PNG", **options: object) -> bytes:
    """By Pillow."""
    buffer = io.BytesIO()
    picture.save(buffer, format=format, **options)
    return buffer.getvalue()


def jpeg(**options: object) -> bytes:
    """Of the photograph, quality 85."""
    return saved(PIL.Image.fromarray(photograph()), "JPEG", **{"quality": 85, **options})


def segment(marker: int, body: bytes) -> bytes:
    """Of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segments(data: bytes, *segments: bytes) -> bytes:
    """A JPEG with these after its JFIF header."""
    after = 4 + struct.unpack_from(">H", data, 4)[0]
    return data[:after] + b"".join(segments) + data[after:]


def chunk(kind: bytes, body: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    samples: np.ndarray, *, depth: int, colour: int, chunks: bytes = b"", after: bytes = b""
) -> bytes:
    """(H, W, channels) as a PNG of any depth, rows unfiltered, with chunks before or after."""
    height, width = samples.shape[:2]
    flat = samples.reshape(height, -1)
    if depth == 16:
        rows = flat.astype(">u2").view(np.uint8)
    elif depth == 8:
        rows = flat.astype(np.uint8)
    else:
        bits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunks + chunk(b"IDAT", packed) + after + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def exif(entries: list[tuple[int, int, int, bytes]], order: str = "<") -> bytes:
    """A TIFF structure with one directory of (tag, type, count, value)."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    at = 8 + 2 + 12 * len(entries) + 4
    directory, values = struct.pack(order + "H", len(entries)), b""
    for tag, kind, count, value in sorted(entries):
        directory += struct.pack(order + "HHI", tag, kind, count)
        if len(value) <= 4:
            directory += value.ljust(4, b"\0")
        else:
            directory += struct.pack(order + "I", at + len(values))
            values += value + b"\0" * (len(value) % 2)
    return head + directory + bytes(4) + values
