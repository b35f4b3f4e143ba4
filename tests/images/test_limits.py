"""Pixels and memory: one limit, by the header, and a bound per pixel that holds."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile

from mirnet.errors import ImageError
from mirnet.images import Image, decode, encode, limits, read_size
from mirnet.images.formats import format_named
from tests.images.image_files import chunk, exif, saved

# megapixels apart, so that what is fixed plays no part
SIDES = 1600, 3200
TURNED = exif([(0x0112, 3, 1, b"\x06\0")])
# the peak of a child that decodes one file, above what it has before
CHILD = """
import sys, pathlib
import PIL.Image, simplejpeg, numpy
from mirnet.images import decode, to_png
decode(to_png(numpy.zeros((9, 9, 3), numpy.uint16)), name="warm")
data = pathlib.Path(sys.argv[1]).read_bytes()
def field(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024
before = field("VmRSS")
decode(data, name="a")
print(field("VmHWM") - before)
"""


def bomb(width: int, height: int, *, depth: int, colour: int, chunks: bytes = b"") -> bytes:
    """A PNG of zeros: a few kilobytes that are many pixels."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes(1 + -(-width * depth * channels // 8))
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, colour, 0, 0, 0])
    body = chunk(b"IHDR", header) + chunks + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def one_strip(folder: Path, side: int) -> bytes:
    samples = np.zeros((side, side, 4), np.uint16)
    tifffile.imwrite(
        folder / "a", samples, photometric="rgb", extrasamples=["assocalpha"], compression="zlib",
        rowsperstrip=side, metadata=None, extratags=[(0x0112, "H", 1, 6, True)],
    )  # fmt: skip
    return (folder / "a").read_bytes()


def file_of(kind: str, folder: Path, side: int) -> tuple[str, bytes]:
    turn = chunk(b"eXIf", TURNED)
    black = PIL.Image.new("RGB", (side, side))
    if kind == "16-bit PNG with transparency":
        return "PNG", bomb(side, side, depth=16, colour=6, chunks=turn)
    if kind == "palette PNG with transparency":
        palette = chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", b"\0")
        return "PNG", bomb(side, side, depth=1, colour=3, chunks=palette + turn)
    if kind == "progressive JPEG":
        return "JPEG", saved(black, "JPEG", progressive=True, subsampling=0, exif=TURNED)
    if kind == "WebP with transparency":
        clear = PIL.Image.new("RGBA", (side, side))
        return "WEBP", saved(clear, "WEBP", lossless=True, quality=0, method=0, exif=TURNED)
    if kind == "BMP with transparency":
        alpha = np.zeros((side, side), np.uint8)
        alpha[0] = 1
        return "BMP", encode(Image(np.zeros((side, side, 3), np.uint8), "BMP", alpha))
    if kind == "TIFF of JPEG in one strip":
        options = {"compression": "jpeg", "strip_size": 1 << 30, "tiffinfo": {274: 6}}
        return "TIFF", saved(black.convert("CMYK"), "TIFF", **options)
    return "TIFF", one_strip(folder, side)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "kind",
    [
        "16-bit PNG with transparency",
        "palette PNG with transparency",
        "progressive JPEG",
        "WebP with transparency",
        "BMP with transparency",
        "TIFF of JPEG in one strip",
        "16-bit TIFF in one strip",
    ],
)
def test_decoding_takes_no_more_memory_per_pixel_than_documented(kind: str, tmp_path: Path) -> None:
    taken = []
    for side in SIDES:
        name, data = file_of(kind, tmp_path, side)
        (tmp_path / "file").write_bytes(data)
        command = [sys.executable, "-c", CHILD, str(tmp_path / "file")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        taken.append(int(done.stdout))
    pixels = SIDES[1] ** 2 - SIDES[0] ** 2
    slope = (taken[1] - taken[0]) / pixels
    assert slope < format_named(name).decode_bytes
    assert taken[1] > 3 * SIDES[1] ** 2


def test_more_pixels_than_pillow_admits_are_no_matter_of_pillow() -> None:
    data = bomb(190_000_000, 1, depth=1, colour=0)
    with pytest.raises(ImageError, match="190000000x1 is more than the limit of 180000000 pixels"):
        decode(data, name="a", max_pixels=180_000_000)
    assert read_size(data, name="a") == (1, 190_000_000)
    assert PIL.Image.MAX_IMAGE_PIXELS is None


def test_what_does_not_fit_into_memory_is_refused_by_its_header(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = bomb(1000, 1000, depth=8, colour=2)
    monkeypatch.setattr(limits, "total_memory", lambda: 17_999_999)
    with pytest.raises(ImageError, match=r"takes up to 0\.0 GB, more than") as caught:
        decode(data, name="a")
    assert caught.value.reason == "memory"
    monkeypatch.setattr(limits, "total_memory", lambda: 18_000_000)
    assert decode(data, name="a").pixels.shape == (1000, 1000, 3)


def test_rows_beyond_the_last_are_not_unpacked() -> None:
    """A chunk that unpacks to a gigabyte costs no more than the image that it is for."""
    header = (4).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    packer = zlib.compressobj(9)
    packed = packer.compress(bytes(20 + (64 << 20))) + packer.flush()
    body = chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    assert decode(b"\x89PNG\r\n\x1a\n" + body, name="a").pixels.shape == (4, 4, 3)


def test_a_tile_larger_than_the_picture_is_too_large(tmp_path: Path) -> None:
    samples = np.zeros((16, 16, 3), np.uint16)
    tifffile.imwrite(
        tmp_path / "a", samples, photometric="rgb", tile=(2064, 2064), compression="zlib"
    )
    with pytest.raises(ImageError, match="tiles are larger") as caught:
        decode((tmp_path / "a").read_bytes(), name="a")
    assert caught.value.reason == "too-large"
