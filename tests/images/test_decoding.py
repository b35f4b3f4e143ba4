"""Every kind of input has its fate: read, converted or refused with one line."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tifffile

from mirnet.errors import ImageError
from mirnet.images import decode, encode, read_rgb, read_size, to_png

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 9, 3)).astype(np.uint8)


def saved(picture: PIL.Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=format, **options)
    return buffer.getvalue()


def png(width: int, height: int, *, bits: int, colour_type: int, rows: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


JPEG = saved(PIL.Image.fromarray(COLOUR), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, this is text", "not-an-image"),
        (to_png(COLOUR)[:60], "truncated"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (b"\x89PNG\r\n\x1a\n" + JPEG, "truncated"),
        (saved(PIL.Image.fromarray(COLOUR), "GIF"), "unsupported"),
        (png(100_000, 100_000, bits=8, colour_type=2), "too-large"),
        (png(20_000, 20_000, bits=8, colour_type=2), "too-large"),
        (saved(PIL.Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "unsupported"),
        (saved(PIL.Image.fromarray(np.ones((4, 4), np.int32)), "TIFF"), "unsupported"),
        (
            saved(
                PIL.Image.fromarray(COLOUR),
                "WEBP",
                save_all=True,
                append_images=[PIL.Image.fromarray(255 - COLOUR)],
            ),
            "animated",
        ),
        (
            saved(
                PIL.Image.fromarray(COLOUR),
                "TIFF",
                save_all=True,
                append_images=[PIL.Image.fromarray(COLOUR)],
            ),
            "animated",
        ),
    ],
)
def test_refused_with_one_line_that_names_the_file(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data, name="night.png")
    assert caught.value.reason == reason
    assert str(caught.value).startswith("night.png")
    assert "\n" not in str(caught.value)


def test_every_prefix_of_a_file_is_refused_or_read_never_a_crash() -> None:
    for data in (to_png(COLOUR), JPEG, saved(PIL.Image.fromarray(COLOUR), "TIFF")):
        for length in range(0, len(data) - 1, 7):
            try:
                image = decode(data[:length], name="cut")
            except ImageError:
                continue
            assert image.pixels.shape == COLOUR.shape


def test_the_limit_is_checked_before_decoding() -> None:
    with pytest.raises(ImageError, match="9x6 is more than the limit of 53 pixels"):
        decode(to_png(COLOUR), name="x", max_pixels=53)
    assert decode(to_png(COLOUR), name="x", max_pixels=54).pixels.shape == (6, 9, 3)


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (1, 5000)])
def test_thin_images_are_read(size: tuple[int, int]) -> None:
    assert decode(to_png(np.zeros((*size, 3), np.uint8)), name="x").pixels.shape == (*size, 3)


def test_palette_with_transparency() -> None:
    picture = PIL.Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), mode="P")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    image = decode(saved(picture, transparency=1), name="x")
    assert image.pixels.tolist() == [[[10, 20, 30], [40, 50, 60]], [[40, 50, 60], [10, 20, 30]]]
    assert image.alpha is not None
    assert image.alpha.tolist() == [[255, 0], [0, 255]]


def test_16_bit_grey_with_alpha() -> None:
    samples = RNG.integers(0, 65536, (3, 4, 2)).astype(np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    image = decode(png(4, 3, bits=16, colour_type=4, rows=rows), name="x")
    assert image.grey
    assert np.array_equal(image.pixels, np.repeat(samples[..., :1], 3, axis=2))
    assert image.alpha is not None
    assert np.array_equal(image.alpha, samples[..., 1])
    again = decode(encode(image), name="x")
    assert np.array_equal(again.pixels, image.pixels)
    assert again.grey


def test_cmyk_becomes_rgb() -> None:
    picture = PIL.Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    image = decode(saved(picture, "TIFF"), name="x")
    assert image.pixels[0, 0].tolist() == [255, 0, 0]
    assert image.icc is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    data = saved(PIL.Image.fromarray(COLOUR), exif=exif)
    image = decode(data, name="x")
    upright = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data)))
    assert np.array_equal(image.pixels, np.asarray(upright))
    again = PIL.Image.open(io.BytesIO(encode(image)))
    assert again.getexif()[0x0112] == 1
    assert again.getexif()[0x010F] == "maker"


def test_strict_reading_refuses_what_a_data_set_should_not_hold(tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    good.write_bytes(to_png(COLOUR))
    assert np.array_equal(read_rgb(good), COLOUR)
    for name, data, found in [
        ("grey.png", saved(PIL.Image.fromarray(COLOUR[..., 0])), "8-bit grey"),
        ("deep.png", to_png(COLOUR.astype(np.uint16) * 257), "16-bit RGB"),
        ("glass.png", saved(PIL.Image.new("RGBA", (2, 2))), "8-bit RGB with transparency"),
    ]:
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ImageError, match=f"{name}: expected 8-bit RGB, found {found}"):
            read_rgb(path)
    with pytest.raises(ImageError, match=r"missing\.png: No such file"):
        read_rgb(tmp_path / "missing.png")


def tiff(samples: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, metadata=None, **options)
    return buffer.getvalue()


WIDE = np.random.default_rng(0).integers(0, 65536, (6, 9, 3), dtype=np.uint16)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_16_bit_tiff_is_turned_once(orientation: int) -> None:
    tag = (0x0112, "H", 1, orientation, True)
    wide = tiff(WIDE, photometric="rgb", extratags=[tag])
    narrow = tiff((WIDE >> 8).astype(np.uint8), photometric="rgb", extratags=[tag])
    image = decode(wide, name="a")
    assert image.pixels.dtype == np.uint16
    assert np.array_equal(image.pixels >> 8, decode(narrow, name="b").pixels)
    assert read_size(wide, name="a") == image.pixels.shape[:2]


def test_min_is_white_is_no_negative() -> None:
    wide = decode(tiff(WIDE[..., 0], photometric="miniswhite"), name="a")
    assert np.array_equal(wide.pixels[..., 0], 65535 - WIDE[..., 0])


@pytest.mark.parametrize(
    ("samples", "options"),
    [
        (np.repeat(WIDE[..., :1], 4, 2), {"photometric": "separated"}),
        (WIDE.astype(np.float32), {"photometric": "rgb"}),
        (WIDE.astype(np.uint32), {"photometric": "rgb"}),
        (WIDE.astype(np.int16), {"photometric": "rgb"}),
    ],
    ids=["cmyk", "float", "32 bits", "signed"],
)
def test_tiffs_that_would_lose_bits_are_refused(
    samples: np.ndarray, options: dict[str, object]
) -> None:
    with pytest.raises(ImageError) as caught:
        decode(tiff(samples, **options), name="a.tif")
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("bits", "colour_type", "channels"), [(8, 2, 3), (16, 2, 3), (1, 0, 1), (16, 4, 2)]
)
def test_a_png_without_all_its_rows_is_cut_short(
    bits: int, colour_type: int, channels: int, interlaced: bool
) -> None:
    if interlaced:
        whole = INTERLACED
    else:
        row = b"\0" + bytes(-(-10 * bits * channels // 8))
        whole = png(10, 8, bits=bits, colour_type=colour_type, rows=row * 8)
    decode(whole, name="a")
    start = whole.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", whole, start)
    rows = zlib.decompress(whole[start + 8 : start + 8 + length])
    for body in (zlib.compress(rows[:-1]), zlib.compress(rows[: len(rows) // 2])):
        short = struct.pack(">I", len(body)) + b"IDAT" + body
        short += struct.pack(">I", zlib.crc32(b"IDAT" + body))
        with pytest.raises(ImageError, match="rows are missing"):
            decode(whole[:start] + short + whole[start + 12 + length :], name="a")
    flipped = bytearray(whole)
    flipped[start + 8 + length] ^= 1
    for damaged in (bytes(flipped), whole[:-12], whole[:-1]):
        with pytest.raises(ImageError) as caught:
            decode(damaged, name="a")
        assert caught.value.reason == "truncated"


# 8x8 grey of zeros in the seven passes of Adam7
_PASSES = ((1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4))
_ROWS = b"".join((b"\0" + bytes(columns)) * rows for columns, rows in _PASSES)


def _chunk(kind: bytes, body: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + crc


INTERLACED = (
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1))
    + _chunk(b"IDAT", zlib.compress(_ROWS))
    + _chunk(b"IEND", b"")
)
