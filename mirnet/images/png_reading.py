"""PNG -> array and metadata.

Pillow gets only the chunks needed to decode the image: it refuses whole files for the size of a
text, and does not report the depth of a transparent colour.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL.PngImagePlugin import PngImageFile

from mirnet.images import png, strips
from mirnet.images.image import Image, Metadata, Resolution, Unreadable, after
from mirnet.images.inflate import inflated_size

XMP_KEYWORD = b"XML:com.adobe.xmp"
TEXT = (b"tEXt", b"zTXt", b"iTXt")
COLOUR = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI")
_GREY, _PALETTE = (0, 4), 3
_UNPACKED = 32 << 20
_OWN_TREATMENT = {b"tRNS", b"eXIf", b"pHYs", b"iCCP", b"acTL", b"fcTL", b"fdAT"}


def header(data: bytes) -> png.Header:
    """The header.

    Raises:
        Unreadable: Apple's variant, which other decoders do not read.
        ValueError: it is damaged.
    """
    if data[12:16] == b"CgBI":
        raise Unreadable("PNG of Apple's kind (CgBI) is not supported")
    return png.read_header(data)


@dataclass(frozen=True)
class _File:
    header: png.Header
    lean: bytes
    key: bytes | None
    ancillary: tuple[png.Chunk, ...]
    behind: tuple[str, ...]


def read(data: bytes) -> Image:
    """The image as stored, with its metadata; orientation is not applied yet.

    Raises:
        Unreadable: ``unsupported``, ``animated``.
        ValueError, zlib.error: something is damaged or missing.
    """
    file = _read(data)
    samples, alpha = _samples(file)
    grey = file.header.colour in _GREY
    pixels = strips.three(samples) if samples.ndim == 2 else samples
    icc, exif, metadata = _metadata(file)
    return Image(pixels, "PNG", alpha, grey, icc, exif, metadata=metadata)


def _read(data: bytes) -> _File:
    header = png.read_header(data)
    lean: list[tuple[bytes, bytes]] = []
    ancillary = []
    key, ended, end = None, False, len(png.SIGNATURE)
    for chunk in png.read_chunks(data):
        end += 12 + len(chunk.body)
        if not chunk.ancillary:
            if not chunk.intact:
                kind = chunk.kind.decode("latin-1")
                raise ValueError(f"checksum of {kind} is wrong")
            if chunk.kind not in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
                kind = chunk.kind.decode("latin-1")
                raise Unreadable(f"critical chunk {kind} is unknown")
            ended = chunk.kind == b"IEND"
            lean.append((chunk.kind, chunk.body))
            continue
        if chunk.kind == b"tRNS":
            if not chunk.intact:
                raise ValueError("checksum of tRNS is wrong")
            key = chunk.body
            if header.colour == _PALETTE:
                lean.append((chunk.kind, chunk.body))
        if chunk.kind == b"acTL" and int.from_bytes(chunk.body[:4], "big") > 1:
            frames = int.from_bytes(chunk.body[:4], "big")
            raise Unreadable(f"has {frames} frames; one is supported", "animated")
        ancillary.append(chunk)
    if not ended:
        raise ValueError("its end is missing")
    # Pillow fills missing rows with black
    rows, _ = inflated_size((body for kind, body in lean if kind == b"IDAT"), header.num_bytes)
    if rows < header.num_bytes:
        raise ValueError("rows are missing")
    return _File(header, png.SIGNATURE + png.pack(lean), key, tuple(ancillary), after(data, end))


def _samples(file: _File) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Colours (H, W) or (H, W, 3), and alpha."""
    colour, deep = file.header.colour, file.header.depth == 16
    if colour == _PALETTE:
        pillow = PngImageFile(io.BytesIO(file.lean))
        if file.key is None:
            return strips.to_mode(pillow, "RGB"), None
        both: npt.NDArray[Any] = strips.to_mode(pillow, "RGBA")
    elif deep:
        both = _wide(file)
    else:
        mode = {0: "L", 2: "RGB", 4: "LA", 6: "RGBA"}[colour]
        both = strips.to_mode(PngImageFile(io.BytesIO(file.lean)), mode)
    if colour in (0, 2):
        return both, _keyed(both, file)
    alpha = np.ascontiguousarray(both[..., -1])
    return np.ascontiguousarray(both[..., 0] if colour == 4 else both[..., :3]), alpha


def _keyed(samples: npt.NDArray[Any], file: _File) -> npt.NDArray[Any] | None:
    """Transparent where the samples, in the stored depth, equal the key."""
    num_channels, depth = samples.size // (samples.shape[0] * samples.shape[1]), file.header.depth
    if file.key is None or len(file.key) < 2 * num_channels:
        return None
    largest = (1 << depth) - 1
    scale = 255 // largest if depth < 8 else 1
    keys = [
        (int.from_bytes(file.key[2 * n : 2 * n + 2], "big") & largest) * scale
        for n in range(num_channels)
    ]
    channels = [samples] if samples.ndim == 2 else [samples[..., n] for n in range(3)]
    hit = channels[0] == keys[0]
    for channel, value in zip(channels[1:], keys[1:], strict=True):
        hit &= channel == value
    alpha = np.full(hit.shape, np.iinfo(samples.dtype).max, samples.dtype)
    alpha[hit] = 0
    return alpha


def _wide(file: _File) -> npt.NDArray[np.uint16]:
    """16-bit samples as stored.

    Pillow returns 8 bits of each: the high byte, or the low one if the byte order of its raw mode
    is swapped. Both together are the sample.
    """
    num_channels = {0: 1, 2: 3, 4: 2, 6: 4}[file.header.colour]
    height, width = file.header.height, file.header.width
    if num_channels == 2:
        # two bytes of grey, two of alpha: four bytes per pixel, as RGBA has
        return strips.to_mode(_reopened(file.lean, "RGBA"), "RGBA").view(">u2").astype(np.uint16)
    if num_channels == 1:
        both = strips.to_array(_reopened(file.lean, None), 1, lambda piece: piece, np.uint16)
        return both.astype(np.uint16, copy=False)
    wide = np.empty((height, width, num_channels), ">u2")
    parts = wide.view(np.uint8).reshape(height, width, num_channels, 2)
    layout = "RGB" if num_channels == 3 else "RGBA"
    for place, order in enumerate("BL"):
        pillow = _reopened(file.lean, f"{layout};16{order}")
        pillow.load()
        for left, top, right, bottom in strips.boxes(width, height):
            piece = pillow.crop((left, top, right, bottom))
            parts[top:bottom, left:right, :, place] = np.asarray(piece)
    return wide.byteswap(inplace=True).view(np.uint16)


def _reopened(lean: bytes, raw_mode: str | None) -> PngImageFile:
    pillow = PngImageFile(io.BytesIO(lean))
    if raw_mode:
        pillow.tile = [tile._replace(args=raw_mode) for tile in pillow.tile]
    return pillow


def _metadata(file: _File) -> tuple[bytes | None, bytes | None, Metadata]:
    icc = exif = xmp = resolution = None
    text, colour, others, dropped = [], [], [], []
    for chunk in file.ancillary:
        kind, body, spelled = chunk.kind, chunk.body, chunk.kind.decode("latin-1")
        if not chunk.intact:
            dropped.append(f"{spelled} with a wrong checksum")
        elif kind == b"iCCP":
            icc = _unpacked(body.partition(b"\0")[2][1:])
            if icc is None:
                dropped.append("colour profile that is damaged")
            else:
                colour.append((kind, body))
        elif kind == b"eXIf":
            exif = body.removeprefix(b"Exif\0\0")
        elif kind == b"pHYs" and len(body) == 9:
            across, down = (int.from_bytes(body[n : n + 4], "big") for n in (0, 4))
            resolution = Resolution(across, down, "metre" if body[8] == 1 else "none")
        elif kind == b"iTXt" and body.startswith(XMP_KEYWORD + b"\0") and xmp is None:
            xmp = _international(body)
            dropped += ["XMP that is damaged"] if xmp is None else []
        elif kind in TEXT:
            text.append((kind, body))
        elif kind in COLOUR:
            colour.append((kind, body))
        elif kind == b"tIME" or (chunk.safe_to_copy and kind not in _OWN_TREATMENT):
            others.append((kind, body))
        elif kind not in _OWN_TREATMENT:
            dropped.append(f"PNG chunk {spelled}")
    metadata = Metadata(
        xmp=xmp,
        resolution=resolution,
        text=tuple(text),
        colour=tuple(colour),
        others=tuple(others),
        dropped=(*dropped, *file.behind),
    )
    return icc, exif, metadata


def raw_profile(kind: str, data: bytes) -> bytes:
    """The body of a zTXt in ImageMagick's convention for IPTC in PNG."""
    digits = data.hex()
    lines = [digits[n : n + 72] for n in range(0, len(digits), 72)]
    text = "\n".join(["", kind, f"{len(data):8d}", *lines, ""])
    return f"Raw profile type {kind}".encode() + b"\0\0" + zlib.compress(text.encode())


def comment(text: bytes) -> tuple[bytes, bytes]:
    """A JPEG comment as a chunk: tEXt is Latin-1, iTXt UTF-8, neither with zero bytes."""
    text = text.replace(b"\0", b"")
    try:
        international = not text.isascii() and bool(text.decode("utf-8"))
    except UnicodeDecodeError:
        international = False
    if international:
        return b"iTXt", b"Comment" + bytes(5) + text
    return b"tEXt", b"Comment\0" + text


def _international(body: bytes) -> bytes | None:
    """The text of an iTXt: keyword, flag, method, language, translated keyword, text."""
    _, _, rest = body.partition(b"\0")
    packed = rest[:1] == b"\1"
    text = rest[2:].split(b"\0", 2)[-1]
    return _unpacked(text) if packed else text


def _unpacked(data: bytes) -> bytes | None:
    """None if it is damaged or larger than any profile."""
    inflate = zlib.decompressobj()
    try:
        unpacked = inflate.decompress(data, _UNPACKED)
    except zlib.error:
        return None
    return unpacked if inflate.eof else None
