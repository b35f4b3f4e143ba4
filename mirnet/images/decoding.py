"""Bytes -> array: EXIF orientation, transparency, 16 bits, size limits.

Formats of the table with one frame are accepted. Arrays are (H, W, 3) RGB.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image

from mirnet.errors import ImageError
from mirnet.images import (
    bmp,
    jpeg,
    jpeg_metadata,
    limits,
    metadata,
    png,
    png_reading,
    strips,
    tags,
    tiff,
    tiff_metadata,
    webp,
)
from mirnet.images.formats import FORMATS, TABLE, Format
from mirnet.images.image import MAX_PIXELS, Image, Pixels, Unreadable

# errors of decoders on damaged files
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError),
    *(struct.error, zlib.error),
)
# other image formats, by their first bytes
_OTHERS = {
    b"GIF8": "GIF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"II\xbc\x01": "JPEG XR",
    b"8BPS": "Photoshop",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"qoif": "QOI",
    b"DDS ": "DDS",
    b"gimp xcf": "GIMP",
    b"SIMPLE  =": "FITS",
    b"BPG\xfb": "BPG",
    b"P5\n": "PNM",
    b"P6\n": "PNM",
    b"\0\0\1\0": "icon",
    b"\x8aMNG": "MNG",
    b"\x8bJNG": "JNG",
    b"FUJIFILMCCD-RAW": "raw camera data",
    b"IIRO": "raw camera data",
    b"IIU\0": "raw camera data",
}
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "HEIC"),
    **dict.fromkeys((b"mif1", b"msf1", b"mif2"), "HEIF"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    b"crx ": "raw camera data",
}


def read_rgb(path: Path, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read an 8-bit RGB image without transparency: (H, W, 3) uint8, RGB.

    Strict, for data sets: nothing is converted.

    Raises:
        ImageError: the file is missing or damaged, or is grey, 16-bit or transparent; names it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}", reason="not-an-image") from error
    image = decode(data, name=str(path), max_pixels=max_pixels)
    if image.grey or image.alpha is not None or image.pixels.dtype != np.uint8:
        kind = "grey" if image.grey else "RGB"
        bits = image.pixels.dtype.itemsize * 8
        alpha = " with transparency" if image.alpha is not None else ""
        raise ImageError(
            f"{path}: expected 8-bit RGB, found {bits}-bit {kind}{alpha}",
            reason="unsupported",
        )
    return image.pixels  # type: ignore[return-value]


def decode(data: bytes, *, name: str, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode the bytes of an image file.

    EXIF orientation is applied. Palettes become RGB. CMYK is converted to sRGB, with its
    profile if it has one. Samples of 9 to 16 bits become 16 bits of full range. Of a JPEG with
    several images (MPO) the first is read.

    Args:
        name: name of the file in errors.
        max_pixels: larger images are refused before they are decoded, and so are images that
            need more memory than the machine has.

    Raises:
        ImageError: ``empty``, ``not-an-image``, ``truncated``, ``too-large``, ``animated`` or
            ``unsupported`` (other formats, floating point, 32-bit integers, Lab).
    """
    with _named(name):
        entry = _format(data)
        height, width, _ = _SIZES[entry.name](data)
        limits.check(height, width, max_pixels, entry=entry)
        image, orientation = _READERS[entry.name](data)
        turned = replace(
            image,
            pixels=_turn(image.pixels, orientation),
            alpha=None if image.alpha is None else _turn(image.alpha, orientation),
        )
        return metadata.upright(turned, orientation)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors of reading as ImageError, which names the file."""
    try:
        yield
    except Unreadable as error:
        raise ImageError(f"{name}: {error}", reason=error.reason) from error
    except _DAMAGE as error:
        why = str(error) or type(error).__name__
        raise ImageError(f"{name}: damaged or cut short: {why}", reason="truncated") from error


def read_size(data: bytes, *, name: str) -> tuple[int, int]:
    """Height and width as :func:`decode` would return them, from the header alone.

    Raises:
        ImageError: no readable header.
    """
    with _named(name):
        height, width, orientation = _SIZES[_format(data).name](data)
    return (width, height) if orientation > 4 else (height, width)


def _format(data: bytes) -> Format:
    """The format by the first bytes, whatever the name is.

    Raises:
        Unreadable: ``empty``, ``unsupported`` for other image formats, ``not-an-image``.
    """
    if not data:
        raise Unreadable("the file is empty", "empty")
    for entry in TABLE:
        if data.startswith(entry.magic) and (entry.name != "WEBP" or data[8:12] == b"WEBP"):
            return entry
    wanted = ", ".join(FORMATS)
    other = next((what for start, what in _OTHERS.items() if data.startswith(start)), None)
    if data[4:8] == b"ftyp":
        brands = (data[8:12], *(data[n : n + 4] for n in range(16, 64, 4)))
        other = next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)
    if other:
        raise Unreadable(f"is {other}, none of {wanted}")
    raise Unreadable(f"is none of {wanted}", "not-an-image")


def _read_png(data: bytes) -> tuple[Image, int]:
    image = png_reading.read(data)
    return image, tags.orientation(image.exif)


def _read_jpeg(data: bytes) -> tuple[Image, int]:
    stream = jpeg.parse(data)
    icc, exif, carried = jpeg_metadata.read(stream, data)
    num = len(stream.components)
    samples = jpeg.decode(stream, {1: "GRAY", 3: "RGB", 4: "CMYK"}[num])
    if num == 4:
        ink = 255 - samples if stream.adobe else samples
        pillow = PIL.Image.fromarray(ink, "CMYK")
        samples, icc = strips.cmyk_to_srgb(pillow, icc), None
    grey = num == 1
    pixels = strips.three(samples.reshape(samples.shape[:2])) if grey else samples
    image = Image(pixels, "JPEG", grey=grey, icc=icc, exif=exif, metadata=carried)
    return image, tags.orientation(exif)


def _read_webp(data: bytes) -> tuple[Image, int]:
    image = webp.read(data)
    return image, tags.orientation(image.exif)


def _read_tiff(data: bytes) -> tuple[Image, int]:
    page = tiff.find_page(data)
    image = tiff.read(data, page)
    icc, exif, carried = tiff_metadata.read(page)
    cmyk = page.is_cmyk
    return replace(image, icc=None if cmyk else icc, exif=exif, metadata=carried), page.orientation


def _read_bmp(data: bytes) -> tuple[Image, int]:
    return bmp.read(bmp.open_file(data), data), 1


def _size_of_png(data: bytes) -> tuple[int, int, int]:
    header = png_reading.header(data)
    exif = next((c.body for c in png.read_chunks(data) if c.kind == b"eXIf"), b"")
    return header.height, header.width, tags.orientation(exif.removeprefix(b"Exif\0\0"))


def _size_of_jpeg(data: bytes) -> tuple[int, int, int]:
    stream = jpeg.parse(data, header_only=True)
    return stream.height, stream.width, tags.orientation(jpeg_metadata.exif_of(stream))


def _size_of_webp(data: bytes) -> tuple[int, int, int]:
    return *webp.read_size(data), tags.orientation(webp.exif_of(data))


def _size_of_tiff(data: bytes) -> tuple[int, int, int]:
    page = tiff.find_page(data)
    return page.height, page.width, page.orientation


def _size_of_bmp(data: bytes) -> tuple[int, int, int]:
    pillow = bmp.open_file(data)
    return pillow.height, pillow.width, 1


# the image as stored, and its orientation
_READERS = {
    "PNG": _read_png,
    "JPEG": _read_jpeg,
    "WEBP": _read_webp,
    "TIFF": _read_tiff,
    "BMP": _read_bmp,
}
# height and width as stored, and the orientation, by the header
_SIZES = {
    "PNG": _size_of_png,
    "JPEG": _size_of_jpeg,
    "WEBP": _size_of_webp,
    "TIFF": _size_of_tiff,
    "BMP": _size_of_bmp,
}


def _turn(array: Pixels, orientation: int) -> Pixels:
    """Apply EXIF orientation 1 to 8 to (H, W, ...)."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
