"""Bytes -> array: EXIF orientation, ICC profiles, transparency, 16 bit, size limits.

Accepted are the formats of the table with one frame. Arrays are RGB, height x width x 3.
"""

from __future__ import annotations

import io
import logging
import struct
import sys
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ImageCms, UnidentifiedImageError

from mirnet.errors import ImageError
from mirnet.images import png, tiff
from mirnet.images.formats import FORMATS, TABLE
from mirnet.images.image import MAX_PIXELS, Image, Pixels

logger = logging.getLogger(__name__)

_MAGIC = tuple(start for entry in TABLE for start in entry.magic)
_ORIENTATION = 0x0112
# what Pillow's decoders raise on damaged files
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError),
    *(struct.error, zlib.error),
)


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

    EXIF orientation is applied. Palettes become RGB. CMYK is converted to sRGB, by its profile
    where it has one. Of a multi-picture JPEG (MPO) the first picture counts.

    Args:
        name: what to call the file in errors.
        max_pixels: larger images are refused before they are decoded.

    Raises:
        ImageError: ``empty``, ``not-an-image``, ``truncated``, ``too-large``, ``animated`` or
            ``unsupported`` (floating point, 32-bit integers, Lab).
    """
    if not data:
        raise ImageError(f"{name}: the file is empty", reason="empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes are checked here, against our own limit
        picture = _open(data, name=name)
        _check(picture, name=name, max_pixels=max_pixels)
        try:
            if picture.format == "PNG":
                png.check_whole(data)
            image = _upright(_to_image(picture, data, name=name), picture)
            return replace(image, lossless=_is_lossless_webp(data))
        except ImageError:
            raise
        except _DAMAGE as error:
            raise ImageError(
                f"{name}: damaged or cut short: {str(error) or type(error).__name__}",
                reason="truncated",
            ) from error


def read_size(data: bytes, *, name: str) -> tuple[int, int]:
    """Height and width that :func:`decode` would give, from the header alone.

    Raises:
        ImageError: there is no header that can be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = _open(data, name=name)
        try:
            # Pillow's size of a TIFF is that of the upright picture
            turned = picture.format != "TIFF" and picture.getexif().get(_ORIENTATION, 1) > 4
        except _DAMAGE as error:
            raise ImageError(f"{name}: damaged: {error}", reason="truncated") from error
    width, height = picture.size
    return (width, height) if turned else (height, width)


def _open(data: bytes, *, name: str) -> PIL.Image.Image:
    try:
        return PIL.Image.open(io.BytesIO(data), formats=FORMATS)
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too many pixels to open", reason="too-large") from error
    except UnidentifiedImageError as error:
        if tiff.is_whole(data):
            raise ImageError(
                f"{name}: TIFF of a kind that is not supported", reason="unsupported"
            ) from error
        if data.startswith(_MAGIC):
            raise ImageError(
                f"{name}: damaged, cut short or of an unsupported kind", reason="truncated"
            ) from error
        wanted = ", ".join(FORMATS)
        raise ImageError(f"{name}: is none of {wanted}", reason="not-an-image") from error
    except _DAMAGE as error:
        raise ImageError(f"{name}: damaged: {error}", reason="truncated") from error


def _is_lossless_webp(data: bytes) -> bool:
    """By the kind of its first bitstream chunk (RFC 9649, section 2)."""
    at = 12
    while data[:4] == b"RIFF" and data[8:12] == b"WEBP" and at + 8 <= len(data):
        kind, (size,) = data[at : at + 4], struct.unpack_from("<I", data, at + 4)
        if kind in (b"VP8 ", b"VP8L"):
            return bool(kind == b"VP8L")
        at += 8 + size + size % 2
    return False


def _check(picture: PIL.Image.Image, *, name: str, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} is more than the limit of {max_pixels} pixels",
            reason="too-large",
        )
    try:
        frames = getattr(picture, "n_frames", 1)
    except _DAMAGE as error:
        raise ImageError(f"{name}: damaged: {error}", reason="truncated") from error
    if frames > 1 and picture.format != "MPO":
        raise ImageError(f"{name}: has {frames} frames; one is supported", reason="animated")


def _to_image(picture: PIL.Image.Image, data: bytes, *, name: str) -> Image:
    """Pixels as stored, with metadata; orientation still to be applied."""
    wide = _decode_16_bit(picture, data, name=name)
    if wide is not None:
        return wide
    if picture.mode in ("I", "F", "LAB", "HSV", "YCbCr"):
        raise ImageError(
            f"{name}: pixels of type {picture.mode} are not supported", reason="unsupported"
        )
    icc = picture.info.get("icc_profile")
    format = "JPEG" if picture.format == "MPO" else picture.format or "PNG"
    if picture.mode == "CMYK":
        return Image(pixels=np.asarray(_cmyk_to_srgb(picture, icc)), format=format)
    grey = picture.mode in ("1", "L", "LA", "La")
    if picture.has_transparency_data:
        rgba = np.asarray(picture.convert("RGBA"))
        return Image(rgba[..., :3], format=format, alpha=rgba[..., 3], grey=grey, icc=icc)
    return Image(np.asarray(picture.convert("RGB")), format=format, grey=grey, icc=icc)


def _cmyk_to_srgb(picture: PIL.Image.Image, icc: bytes | None) -> PIL.Image.Image:
    if not icc:
        return picture.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        logger.warning("CMYK profile not usable, converting without it: %s", error)
        return picture.convert("RGB")
    assert converted is not None
    return converted


def _decode_16_bit(picture: PIL.Image.Image, data: bytes, *, name: str) -> Image | None:
    """Pixels of a 16-bit file, else ``None``.

    Pillow gives 8 bits of each 16-bit RGB sample: the high byte, or the low one when the byte
    order of the raw mode is named the other way round. Both together are the sample.
    """
    format, icc = picture.format or "PNG", picture.info.get("icc_profile")
    key = picture.info.get("transparency")
    if picture.mode.startswith("I;16"):
        grey = np.asarray(picture).astype(np.uint16)
        if tiff.is_min_is_white(picture):
            grey = 65535 - grey
        alpha = _keyed(grey, key) if isinstance(key, int) else None
        return Image(_three(grey), format=format, alpha=alpha, grey=True, icc=icc)
    raw_mode = _raw_mode(picture)
    if raw_mode == "LA;16B":
        both = np.ascontiguousarray(_reopened(data, "RGBA")).view(">u2").astype(np.uint16)
        return Image(_three(both[..., 0]), format=format, alpha=both[..., 1], grey=True, icc=icc)
    layout, _, order = raw_mode.partition(";16")
    known = layout in ("RGB", "RGBA", "RGBX") and order in ("B", "L", "N")
    if not known or tiff.is_planar(picture):
        if tiff.bits(picture) > 8 and picture.mode != "I":
            raise ImageError(
                f"{name}: 16-bit TIFF of kind {raw_mode or picture.mode}, which is not supported",
                reason="unsupported",
            )
        return None
    if order == "N":
        order = "B" if sys.byteorder == "big" else "L"
    high = np.asarray(_reopened(data, f"{layout};16{order}")).astype(np.uint16)
    low = np.asarray(_reopened(data, f"{layout};16{'L' if order == 'B' else 'B'}"))
    wide = (high << 8) | low
    rgb = np.ascontiguousarray(wide[..., :3])
    if layout == "RGBA":
        return Image(rgb, format=format, alpha=wide[..., 3], icc=icc)
    return Image(
        rgb, format=format, alpha=_keyed(rgb, key) if isinstance(key, tuple) else None, icc=icc
    )


def _raw_mode(picture: PIL.Image.Image) -> str:
    tiles = getattr(picture, "tile", None) or []
    arguments = tiles[0].args if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _reopened(data: bytes, raw_mode: str) -> PIL.Image.Image:
    picture = PIL.Image.open(io.BytesIO(data), formats=FORMATS)
    picture.tile = [
        tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
        for tile in picture.tile
    ]
    return picture


def _keyed(samples: npt.NDArray[np.uint16], key: int | tuple[int, ...]) -> npt.NDArray[np.uint16]:
    """PNG's colour key: samples that equal it are transparent."""
    same = samples == np.asarray(key)
    hit = same.all(axis=-1) if samples.ndim == 3 else same
    return np.where(hit, 0, 65535).astype(np.uint16)


def _three(grey: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    return np.repeat(grey[..., None], 3, axis=2)


def _upright(image: Image, picture: PIL.Image.Image) -> Image:
    if picture.format == "TIFF":
        return image  # Pillow has turned it
    exif = picture.getexif()
    turned = exif.get(_ORIENTATION, 1)
    kept = None
    if exif:
        if _ORIENTATION in exif:
            exif[_ORIENTATION] = 1
        try:
            kept = exif.tobytes()
        except _DAMAGE as error:
            logger.warning("EXIF not readable, dropped: %s", error)
    return replace(
        image,
        pixels=_turn(image.pixels, turned),
        alpha=None if image.alpha is None else _turn(image.alpha, turned),
        exif=kept,
    )


def _turn(array: Pixels, orientation: int) -> Pixels:
    """Apply EXIF orientation 1 to 8 to (H, W, ...)."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
