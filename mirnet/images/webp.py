"""WebP -> array and metadata. Container: RFC 9649, section 2."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from PIL.WebPImagePlugin import WebPImageFile

from mirnet.images import strips
from mirnet.images.image import Image, Metadata, Unreadable, after

_ANIMATED = 0x02
_KNOWN = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP", b"EXIF", b"XMP ", b"ANIM", b"ANMF"}


def read(data: bytes) -> Image:
    """The image as stored, with its metadata; orientation is not applied yet.

    Raises:
        Unreadable: ``animated``.
        ValueError, OSError: something is damaged or missing.
    """
    chunks = dict(reversed(list(_chunks(data))))  # the first of several counts
    if chunks.get(b"VP8X", b"\0")[0] & _ANIMATED:
        frames = sum(kind == b"ANMF" for kind, _ in _chunks(data))
        if frames > 1:
            raise Unreadable(f"has {frames} frames; one is supported", "animated")
    pillow = WebPImageFile(io.BytesIO(data))
    image = strips.to_image(pillow, "WEBP")
    exif = chunks.get(b"EXIF")
    unknown = sorted({kind for kind in chunks if kind not in _KNOWN})
    return Image(
        image.pixels,
        "WEBP",
        image.alpha,
        icc=chunks.get(b"ICCP"),
        exif=exif.removeprefix(b"Exif\0\0") if exif else None,
        lossless=b"VP8L" in chunks and b"VP8 " not in chunks,
        metadata=Metadata(
            xmp=chunks.get(b"XMP "),
            dropped=(
                *(f"WebP chunk {kind.decode('latin-1').strip()}" for kind in unknown),
                *after(data, _end(data)),
            ),
        ),
    )


def read_size(data: bytes) -> tuple[int, int]:
    """Height and width.

    Raises:
        ValueError: no valid header.
    """
    for kind, body in _chunks(data):
        if kind == b"VP8X" and len(body) >= 10:
            width, height = (1 + int.from_bytes(body[n : n + 3], "little") for n in (4, 7))
            return height, width
        if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a" and len(body) >= 10:
            width, height = struct.unpack_from("<HH", body, 6)
            return height & 0x3FFF, width & 0x3FFF
        if kind == b"VP8L" and body[:1] == b"\x2f" and len(body) >= 5:
            bits = int.from_bytes(body[1:5], "little")
            return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    raise ValueError("its header is missing")


def exif_of(data: bytes) -> bytes | None:
    body = dict(_chunks(data)).get(b"EXIF")
    return body.removeprefix(b"Exif\0\0") if body else None


def _end(data: bytes) -> int:
    """End of the container, or of the file."""
    return min(8 + int.from_bytes(data[4:8], "little"), len(data))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at, end = 12, _end(data)
    while at + 8 <= end:
        kind, (size,) = data[at : at + 4], struct.unpack_from("<I", data, at + 4)
        yield kind, data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
