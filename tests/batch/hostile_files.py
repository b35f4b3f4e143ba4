"""About seventy odd and hostile files, each with its fate as docs/batch.md promises it."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
import PIL.Image
import tifffile

from tests.batch.samples import picture

GOOD = "enhanced"
Fate = tuple[bytes, str]


def saved(image: PIL.Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def rgb(height: int = 20, width: int = 24) -> PIL.Image.Image:
    pixels = np.random.default_rng(7).integers(0, 70, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int, data: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "a")
    return buffer.getvalue()


def tiff(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    tags = PIL.Image.Exif()
    tags[0x0112] = orientation
    tags[0x010F] = "Camera"
    return tags.tobytes()


def broken_png() -> bytes:
    data = bytearray(picture(1))
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


def bad_contents() -> dict[str, Fate]:
    png, jpeg = picture(1), picture(2, format="JPEG")
    return {
        "empty.png": (b"", "empty"),
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"hello, this is no picture", "not-an-image"),
        "zeros.png": (bytes(5000), "not-an-image"),
        "noise.webp": (np.random.default_rng(0).bytes(5000), "not-an-image"),
        "error-page.png": (b"<html><body>404</body></html>", "not-an-image"),
        "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not-an-image"),
        "document.jpg": (b"%PDF-1.7\n1 0 obj\n", "not-an-image"),
        "archive.png": (zipped(), "not-an-image"),
        "gif.png": (saved(rgb(), "GIF"), "unsupported"),
        "script.jpg": (b"#!/bin/sh\nrm -rf /\n", "not-an-image"),
        "cut.png": (png[: len(png) // 2], "truncated"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "cut.webp": (picture(3, format="WEBP")[:300], "truncated"),
        "cut.tif": (picture(4, format="TIFF")[:1000], "truncated"),
        "cut.bmp": (picture(5, format="BMP")[:1000], "truncated"),
        "only-magic.png": (png[:8], "truncated"),
        "only-magic.jpg": (b"\xff\xd8\xff\xe0", "truncated"),
        "flipped-bit.png": (broken_png(), "truncated"),
        "no-rows.png": (png_header(64, 64), "truncated"),
        "bomb.png": (png_header(60_000, 60_000, bytes(1000)), "too-large"),
        "absurd.png": (png_header(2**31 - 1, 2**31 - 1), "too-large"),
        "animated.webp": (
            saved(rgb(), "WEBP", save_all=True, append_images=[rgb().rotate(90)]),
            "animated",
        ),
        "animated.png": (
            saved(rgb(), "PNG", save_all=True, append_images=[rgb().rotate(180)]),
            "animated",
        ),
        "pages.tif": (saved(rgb(), "TIFF", save_all=True, append_images=[rgb()]), "animated"),
        "float.tif": (tiff(np.zeros((8, 8), np.float32)), "unsupported"),
        "lab.tif": (saved(PIL.Image.new("LAB", (8, 8)), "TIFF"), "unsupported"),
    }


def odd_but_good() -> dict[str, Fate]:
    grey16 = np.arange(400, dtype=np.uint16).reshape(20, 20)
    contents = {
        "jpeg-named.png": picture(2, format="JPEG"),
        "png-named.jpg": picture(2),
        "one.png": saved(rgb(1, 1), "PNG"),
        "row.png": saved(rgb(1, 90), "PNG"),
        "column.png": saved(rgb(90, 1), "PNG"),
        "odd-size.jpg": saved(rgb(13, 17), "JPEG"),
        "grey.png": saved(rgb().convert("L"), "PNG"),
        "grey-alpha.png": saved(rgb().convert("LA"), "PNG"),
        "bilevel.png": saved(rgb().convert("1"), "PNG"),
        "palette.png": saved(rgb().convert("P"), "PNG"),
        "palette-alpha.png": saved(rgb().convert("P"), "PNG", transparency=3),
        "alpha.png": saved(rgb().convert("RGBA"), "PNG"),
        "alpha.webp": saved(rgb().convert("RGBA"), "WEBP", lossless=True),
        "grey16.png": saved(PIL.Image.fromarray(grey16), "PNG"),
        "rgb16.tif": tiff(np.repeat(grey16[..., None], 3, axis=2), photometric="rgb"),
        "cmyk.jpg": saved(rgb().convert("CMYK"), "JPEG"),
        "grey.jpg": saved(rgb().convert("L"), "JPEG"),
        "progressive.jpg": saved(rgb(), "JPEG", progressive=True),
        "turned.jpg": saved(rgb(), "JPEG", exif=exif(6)),
        "bad-exif.jpg": saved(rgb(), "JPEG", exif=b"Exif\0\0garbage"),
        "bad-profile.png": saved(rgb(), "PNG", icc_profile=b"no profile"),
        "tail.jpg": picture(2, format="JPEG") + b"trailing bytes" * 50,
        "tail.png": picture(2) + b"trailing bytes" * 50,
        "lzw.tif": saved(rgb(), "TIFF", compression="tiff_lzw"),
        "plain.bmp": saved(rgb(), "BMP"),
        "black.png": saved(PIL.Image.new("RGB", (16, 16)), "PNG"),
        "white.png": saved(PIL.Image.new("RGB", (16, 16), "white"), "PNG"),
    }
    return {f"odd/{name}": (data, GOOD) for name, data in contents.items()}


def odd_names() -> dict[str, Fate]:
    names = [
        "with space.png",
        "ünïcödé 夜.png",
        "moon 🌙.png",
        "quote'\".png",
        "percent%20%2F.png",
        "plus+&=?.png",
        "#hash;semicolon.png",
        "-dash.png",
        "dots..png",
        ".hidden.png",
        "UPPER.PNG",
        "{brace}[bracket]*.png",
        "x" * 200 + ".png",
        "deep/er/and/deep/er/still.png",
        "e\u0301.png",
        "\u00e9.png",
    ]
    return {f"names/{name}": (picture(index), GOOD) for index, name in enumerate(names)}


IGNORED = {"notes.txt": b"x", "Thumbs.db": b"x", "movie.mp4": b"x", "no-suffix": picture(1)}


def all_files() -> dict[str, Fate]:
    return bad_contents() | odd_but_good() | odd_names()
