import io
import zlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageDraw
import pytest
from PIL import ImageCms
from sklearn.datasets import load_sample_image

from mirnet.errors import UsageError
from mirnet.images import Image, decode, encode, png
from mirnet.images.image import Metadata, Resolution

RNG = np.random.default_rng(0)


def sample(shape: tuple[int, int], dtype: type, *, grey: bool, alpha: bool, format: str) -> Image:
    peak = np.iinfo(dtype).max
    pixels = RNG.integers(0, peak + 1, (*shape, 3)).astype(dtype)
    if grey:
        pixels = np.repeat(pixels[..., :1], 3, axis=2)
    mask = RNG.integers(0, peak + 1, shape).astype(dtype) if alpha else None
    return Image(pixels=pixels, format=format, alpha=mask, grey=grey)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (7, 5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize(
    ("format", "alpha"), [("PNG", False), ("PNG", True), ("TIFF", False), ("TIFF", True)]
)
def test_lossless_formats_give_back_every_sample(
    shape: tuple[int, int], dtype: type, grey: bool, format: str, alpha: bool
) -> None:
    image = sample(shape, dtype, grey=grey, alpha=alpha, format=format)
    again = decode(encode(image), name="x")
    assert again.format == format
    assert again.pixels.dtype == dtype
    assert np.array_equal(again.pixels, image.pixels)
    assert (again.alpha is None) == (image.alpha is None)
    if again.alpha is not None and image.alpha is not None:
        assert np.array_equal(again.alpha, image.alpha)


def test_bmp_is_lossless_in_8_bits() -> None:
    image = sample((7, 5), np.uint8, grey=False, alpha=False, format="BMP")
    assert np.array_equal(decode(encode(image), name="x").pixels, image.pixels)


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats_stay_close(format: str) -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1, None]), axis=2)
    again = decode(encode(Image(pixels, format=format)), name="x")
    assert again.format == format
    assert np.abs(again.pixels.astype(int) - pixels).mean() < 2


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_the_colour_profile_is_kept(format: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image(np.zeros((4, 4, 3), np.uint8), format=format, icc=profile)
    assert decode(encode(image), name="x").icc == profile


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_the_colour_profile_is_kept_in_16_bits(format: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image(np.zeros((4, 4, 3), np.uint16), format=format, icc=profile)
    assert decode(encode(image), name="x").icc == profile


def test_16_bits_become_the_nearest_8() -> None:
    wide = np.array([0, 128, 129, 257, 32767, 65535], np.uint16)
    image = Image(np.repeat(wide[None, :, None], 3, axis=2))
    narrow = decode(encode(image, format="BMP"), name="x").pixels[0, :, 0]
    assert narrow.tolist() == [round(int(v) * 255 / 65535) for v in wide]


def test_another_decoder_reads_our_16_bit_png() -> None:
    image = Image(np.full((3, 2, 3), 0x1234, np.uint16))
    assert PIL.Image.open(io.BytesIO(encode(image))).getpixel((0, 0)) == (0x12, 0x12, 0x12)


def test_transparency_is_not_lost_silently() -> None:
    image = sample((2, 2), np.uint8, grey=False, alpha=True, format="PNG")
    with pytest.raises(UsageError, match="JPEG holds no transparency: write one of PNG, WEBP"):
        encode(image, format="JPEG")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_that_is_full_everywhere_is_no_transparency(dtype: type) -> None:
    image = sample((5, 4), dtype, grey=False, alpha=True, format="PNG")
    opaque = replace(image, alpha=np.full((5, 4), np.iinfo(dtype).max, dtype))
    again = decode(encode(opaque, format="JPEG"), name="a")
    assert (again.alpha, again.pixels.shape) == (None, (5, 4, 3))


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5)])
def test_bmp_holds_transparency(shape: tuple[int, int], grey: bool) -> None:
    image = sample(shape, np.uint8, grey=grey, alpha=True, format="BMP")
    image = replace(image, metadata=Metadata(resolution=Resolution(3000, 2000, "metre")))
    data = encode(image)
    again = decode(data, name="a")
    assert np.array_equal(again.pixels, image.pixels)
    assert image.alpha is not None
    assert again.alpha is not None
    assert np.array_equal(again.alpha, image.alpha)
    resolution = again.metadata.resolution
    assert resolution is not None
    assert (round(resolution.across), round(resolution.down)) == (3000, 2000)
    stranger = PIL.Image.open(io.BytesIO(data))
    assert stranger.mode == "RGBA"
    assert np.array_equal(np.asarray(stranger)[..., 3], image.alpha)


def test_an_alpha_of_zeros_in_a_bmp_is_an_empty_one() -> None:
    image = sample((7, 5), np.uint8, grey=False, alpha=True, format="BMP")
    again = decode(encode(replace(image, alpha=np.zeros((7, 5), np.uint8))), name="a")
    assert again.alpha is None
    assert np.array_equal(again.pixels, image.pixels)


def test_unknown_format() -> None:
    with pytest.raises(UsageError, match="format GIF: write one of PNG"):
        encode(Image(np.zeros((1, 1, 3), np.uint8)), format="gif")


@pytest.mark.parametrize(("format", "width"), [("WEBP", 20_000), ("JPEG", 70_000)])
def test_more_pixels_than_a_format_can_count_are_one_line(format: str, width: int) -> None:
    with pytest.raises(UsageError, match=f"{format} cannot hold {width}x1: "):
        encode(Image(np.zeros((1, width, 3), np.uint8)), format=format)


def test_exif_that_fills_its_segment_survives_and_larger_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exif = PIL.Image.Exif()
    exif[0x010E] = "x" * 65_480  # ImageDescription; no orientation
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (4, 4)).save(buffer, "JPEG", exif=exif)
    image = decode(buffer.getvalue(), name="a")
    again = decode(encode(image), name="b")
    assert again.exif is not None and b"x" * 65_480 in again.exif
    larger = replace(image, exif=image.exif + b"\0" * 100)
    assert decode(encode(larger), name="c").exif is None
    assert "does not fit into a JPEG" in caplog.text


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("alpha", [True, False])
def test_webp_without_loss_stays_so(lossless: bool, alpha: bool) -> None:
    mode = "RGBA" if alpha else "RGB"
    pixels = RNG.integers(0, 256, (9, 7, len(mode))).astype(np.uint8)
    buffer = io.BytesIO()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    PIL.Image.fromarray(pixels).save(buffer, "WEBP", lossless=lossless, icc_profile=profile)
    image = decode(buffer.getvalue(), name="a")
    assert image.lossless == lossless
    again = decode(encode(image), name="b")
    assert again.lossless == lossless
    assert np.array_equal(again.pixels, image.pixels) == lossless


def page(lines: Iterable[int] = range(16)) -> npt.NDArray[np.uint8]:
    """Lines of differing words."""
    canvas = PIL.Image.new("RGB", (300, 200), "white")
    draw = PIL.ImageDraw.Draw(canvas)
    words = ("dark", "bright", "usable", "night", "photograph", "bucket")
    for n in lines:
        line = " ".join(words[(n * k + k) % 6] for k in range(1, 9))
        draw.text((4, 12 * n), line, fill=(20, 20, 20))
    return np.asarray(canvas)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("what", ["china.jpg", "flower.jpg", "page", "header", "checkerboard"])
def test_png_is_packed_about_as_small_as_by_zlib_at_its_usual(what: str, dtype: type) -> None:
    if what in ("page", "header"):
        pixels = page(range(16) if what == "page" else (0, 1, 2, 15)).astype(dtype)
    elif what == "checkerboard":
        pixels = np.repeat(np.indices((200, 300)).sum(0)[..., None] % 2 * 255, 3, axis=2)
        pixels = pixels.astype(dtype)
    else:
        pixels = load_sample_image(what).astype(dtype)
        if dtype == np.uint16:  # as a camera's 12 bits
            pixels = pixels * 256 + RNG.integers(0, 16, pixels.shape).astype(dtype) * 16
    packed = encode(Image(pixels))
    assert np.array_equal(decode(packed, name=what).pixels, pixels)
    assert len(packed) < 1.06 * len(_packed_by_level_6(pixels)) + 100
    photograph = what.endswith(".jpg")
    assert png.strategy_for(pixels) == (zlib.Z_RLE if photograph else zlib.Z_DEFAULT_STRATEGY)


def _packed_by_level_6(pixels: npt.NDArray[Any]) -> bytes:
    if pixels.dtype == np.uint8:
        buffer = io.BytesIO()
        PIL.Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()
    rows = pixels.reshape(len(pixels), -1).astype(">u2").view(np.uint8)
    filtered = np.ones((len(rows), rows.shape[1] + 1), np.uint8)
    filtered[:, 1:] = rows
    filtered[:, 7:] -= rows[:, :-6]
    return zlib.compress(filtered.tobytes(), 6)
