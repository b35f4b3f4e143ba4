"""Damaged is damaged, whole is whole, and a refusal has its true reason."""

from __future__ import annotations

import io
import re
import struct
import zlib
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile

from mirnet.errors import ImageError
from mirnet.images import decode, to_png
from tests.images.image_files import chunk, jpeg, photograph, png, saved, segment, with_segments

EOI = b"\xff\xd9"
KINDS = {
    "baseline": jpeg(),
    "optimised": jpeg(optimize=True),
    "progressive": jpeg(progressive=True),
    "restarts": jpeg(restart_marker_rows=1),
    "grey": saved(PIL.Image.fromarray(photograph()[..., 0]), "JPEG"),
    "cmyk": saved(PIL.Image.fromarray(photograph()).convert("CMYK"), "JPEG"),
}
BLACK = saved(PIL.Image.new("RGB", (200, 160)), "JPEG", optimize=True)


def reason(data: bytes) -> str:
    """Of the refusal; ``enhanced`` where there is none."""
    try:
        decode(data, name="a")
    except ImageError as error:
        assert str(error).startswith("a: ")
        return error.reason
    return "enhanced"


def spoilt(data: bytes) -> dict[str, bytes]:
    at = data.rindex(b"\xff\xda") + 14
    half = at + (len(data) - at) // 2
    rest = len(data) - half
    return {
        "cut": data[:half],
        "cut, closed": data[:half] + EOI,
        "cut a byte before the end, closed": data[:-3] + EOI,
        "zeros in its place": data[:half] + bytes(rest),
        "zeros in its place, closed": data[:half] + bytes(rest - 2) + EOI,
        "ones in its place": data[:half] + b"\xff" * rest,
        "ones in its place, closed": data[:half] + b"\xff" * (rest - 2) + EOI,
        "a fill in its place, closed": data[:half] + b"\xaa" * (rest - 2) + EOI,
        "padded to a sector": data[:half] + bytes(4096),
        "another picture in its place": data[:half] + data,
        "hole of ones": data[:half] + b"\xff" * 300 + data[half + 300 :],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_without_all_its_data_is_truncated(kind: str) -> None:
    found = {what: reason(data) for what, data in spoilt(KINDS[kind]).items()}
    assert found == dict.fromkeys(found, "truncated")


@pytest.mark.parametrize("kind", ["baseline", "optimised", "restarts"])
def test_a_hole_in_the_middle_is_truncated(kind: str) -> None:
    data = KINDS[kind]
    at = data.rindex(b"\xff\xda") + 14
    for start in range(at + 500, len(data) - 2500, (len(data) - at) // 6):
        assert reason(data[:start] + data[start + 1500 :]) == "truncated"
        assert reason(data[:start] + bytes(1500) + data[start + 1500 :]) == "truncated"


def test_a_progressive_jpeg_without_its_last_scans_is_truncated() -> None:
    data = KINDS["progressive"]
    scans = [found.start() for found in re.finditer(b"\xff\xda", data)]
    assert len(scans) > 5
    for start in scans[1:]:
        assert reason(data[:start] + EOI) == "truncated"
        assert reason(data[:start]) == "truncated"


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_with_all_its_data_is_enhanced(kind: str) -> None:
    data = KINDS[kind]
    wanted = decode(data, name="a").pixels
    for whole in (
        data[:-2],
        data[:-1],
        data[:-2] + bytes(40) + EOI,
        data[:-2] + b"\xff" * 40 + EOI,
        data[:-2] + bytes(600),
        data + b"a motion photo, vendor data" * 50,
        data + data,
    ):
        assert np.array_equal(decode(whole, name="a").pixels, wanted)


def test_a_dark_flat_jpeg_is_no_padding() -> None:
    assert BLACK.count(b"\0" * 8) > 0  # its codes are zeros
    assert reason(BLACK) == reason(BLACK[:-2]) == "enhanced"


@pytest.mark.parametrize("kind", KINDS)
def test_the_strict_decoder_gives_the_pixels_of_pillow(kind: str) -> None:
    image = decode(KINDS[kind], name="a")
    picture = PIL.Image.open(io.BytesIO(KINDS[kind])).convert("RGB")
    assert np.array_equal(image.pixels, np.asarray(picture))


def test_a_jpeg_with_harmless_oddities_is_enhanced() -> None:
    data = saved(PIL.Image.fromarray(photograph()), "JPEG", subsampling=0)
    odd_scan = bytearray(data)
    at = data.index(b"\xff\xda")
    odd_scan[at + 11 : at + 14] = b"\0\0\0"  # Ss, Se, AhAl of some cameras
    jfif_2 = data.replace(b"JFIF\0\x01", b"JFIF\0\x02", 1)
    for odd in (bytes(odd_scan), jfif_2, with_segments(data, segment(0xE5, b"vendor"), b"\0\0")):
        assert reason(odd) == "enhanced"


def frame_with(**changes: int) -> bytes:
    """The JPEG with other fields in its frame header."""
    data = bytearray(jpeg())
    at = bytes(data).index(b"\xff\xc0")
    for name, value in changes.items():
        place = {"marker": 1, "precision": 4, "height": 6}[name]
        data[at + place] = value
        if name == "height":
            data[at + 5] = 0
    return bytes(data)


def container(brand: bytes) -> bytes:
    return struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + b"mif1" + brand + bytes(400)


APPLE = b"\x89PNG\r\n\x1a\n" + chunk(b"CgBI", bytes(4)) + to_png(photograph())[8:]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (frame_with(precision=12), "unsupported"),
        (frame_with(marker=0xC3), "unsupported"),
        (frame_with(marker=0xC5), "unsupported"),
        (frame_with(marker=0xC9), "unsupported"),
        (frame_with(height=0), "unsupported"),
        (container(b"heic"), "unsupported"),
        (container(b"avif"), "unsupported"),
        (container(b"isom").replace(b"mif1", b"mp42"), "not-an-image"),
        (APPLE, "unsupported"),
        (saved(PIL.Image.fromarray(photograph()), "GIF"), "unsupported"),
        (saved(PIL.Image.fromarray(photograph()), "JPEG2000"), "unsupported"),
        (b"8BPS\0\1" + bytes(100), "unsupported"),
        (b"II\x2a\0", "truncated"),
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(30), "not-an-image"),
        (b"RIFF\x24\0\0\0WEBPVP8 " + bytes(30), "truncated"),
        (
            png(np.zeros((2, 2, 1), int), depth=8, colour=0, chunks=chunk(b"ABCD", b"")),
            "unsupported",
        ),
        (png(np.zeros((2, 2, 1), int), depth=8, colour=1), "truncated"),
    ],
)
def test_the_reason_is_the_true_one(data: bytes, why: str) -> None:
    assert reason(data) == why


def test_a_png_is_whole_whatever_its_texts_and_profiles() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3))
    text = b"workflow\0" + b"\0" + zlib.compress(b"x" * 3_000_000)
    profile = b"big\0\0" + zlib.compress(bytes(1_500_000))
    broken = bytearray(chunk(b"tEXt", b"Comment\0hello"))
    broken[-1] ^= 1
    for chunks in (
        chunk(b"zTXt", text),
        chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(b"x" * 3_000_000)),
        chunk(b"iCCP", profile),
        chunk(b"iCCP", b"bad\0\0 no stream"),
        chunk(b"zTXt", b"bad\0\0 no stream"),
        chunk(b"pHYs", b"short"),
        bytes(broken),
    ):
        for where in ("chunks", "after"):
            data = png(pixels, depth=8, colour=2, **{where: chunks})
            image = decode(data, name="a")
            assert np.array_equal(image.pixels, pixels)
    assert image.metadata.dropped == ("tEXt with a wrong checksum",)


def test_a_tiff_without_all_its_strips_is_truncated() -> None:
    ways: list[dict[str, Any]] = [{}, {"compression": "zlib"}, {"planarconfig": "separate"}]
    for options in ways:
        samples = photograph().astype(np.uint16) * 257
        if "planarconfig" in options:
            samples = samples.transpose(2, 0, 1)
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, samples, photometric="rgb", metadata=None, **options)
        data = buffer.getvalue()
        assert reason(data) == "enhanced"
        assert reason(data[: len(data) * 3 // 4]) == "truncated"
        assert reason(data[:-1]) == "truncated"


def sampled(first: int, *others: int) -> bytes:
    """A whole JPEG that claims these sampling factors for its components."""
    data = bytearray(saved(PIL.Image.fromarray(photograph()), "JPEG", subsampling=2))
    at = bytes(data).index(b"\xff\xc0")
    for n, factors in enumerate((first, *others)):
        data[at + 11 + 3 * n] = factors
    return bytes(data)


@pytest.mark.parametrize(
    "factors",
    [(0x42, 0x11, 0x11), (0x31, 0x11, 0x11), (0x21, 0x11, 0x21), (0x11, 0x22, 0x22)],
)
def test_sampling_factors_of_which_no_decoder_tells_damage_are_unsupported(
    factors: tuple[int, int, int],
) -> None:
    data = sampled(*factors)
    assert reason(data) == reason(data[: len(data) // 2] + EOI) == "unsupported"


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
@pytest.mark.parametrize("transform", range(4))
def test_an_unknown_colour_transform_is_no_damage(mode: str, transform: int) -> None:
    data = saved(PIL.Image.fromarray(photograph()).convert(mode), "JPEG")
    start = 2 + 2 + int.from_bytes(data[4:6], "big") if mode == "RGB" else 2
    data = data.replace(segment(0xEE, b"Adobe\0\x64\0\0\0\0\0"), b"")
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))
    data = data[:2] + adobe + data[start:]
    picture = PIL.Image.open(io.BytesIO(data))
    assert np.array_equal(decode(data, name="a").pixels, np.asarray(picture.convert("RGB")))


def strip_tiff(mode: str, compression: str, width: int = 200) -> bytes:
    """A TIFF of 8 bits in several strips."""
    picture = PIL.Image.fromarray(photograph(width=width)).convert(mode)
    options = {"compression": compression, "tiffinfo": {278: 32}, "strip_size": 32 * width}
    return saved(picture, "TIFF", **options)


def last_strips(data: bytes) -> tuple[int, int]:
    """Where a strip of the middle lies."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        n = len(page.dataoffsets) // 2
        return page.dataoffsets[n], page.databytecounts[n]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_strip_of_jpeg_in_a_tiff_with_a_hole_is_truncated(mode: str) -> None:
    data = strip_tiff(mode, "jpeg")
    offset, count = last_strips(data)
    half = offset + count // 2
    assert reason(data) == "enhanced"
    zeros = bytes(offset + count - half)
    assert reason(data[:half] + zeros + data[offset + count :]) == "truncated"
    closed = zeros[:-2] + EOI
    assert reason(data[:half] + closed + data[offset + count :]) == "truncated"


def test_the_jpeg_of_tiff_6_of_which_no_decoder_tells_damage_is_unsupported() -> None:
    data = strip_tiff("RGB", "jpeg")
    compression = struct.pack("<HHIHH", 259, 3, 1, 7, 0)
    assert data.count(compression) == 1
    assert (
        reason(data.replace(compression, struct.pack("<HHIHH", 259, 3, 1, 6, 0))) == "unsupported"
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "YCbCr"])
def test_a_tiff_of_jpeg_has_the_pixels_that_libtiff_gives(mode: str) -> None:
    picture = PIL.Image.fromarray(photograph(150, 210)).convert(mode)
    data = saved(picture, "TIFF", compression="jpeg", quality=90, tiffinfo={278: 48})
    wanted = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(decode(data, name="a").pixels, wanted)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK"])
def test_deflate_in_a_tiff_is_held_against_its_checksum(mode: str) -> None:
    data = strip_tiff(mode, "tiff_adobe_deflate")
    offset, count = last_strips(data)
    assert reason(data) == "enhanced"
    for place in range(offset + 2, offset + count, max(1, count // 20)):
        flipped = bytearray(data)
        flipped[place] ^= 16
        assert reason(bytes(flipped)) == "truncated"
    half = offset + count // 2
    zeros = bytes(offset + count - half)
    assert reason(data[:half] + zeros + data[offset + count :]) == "truncated"
