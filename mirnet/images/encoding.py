"""Array -> bytes: what is written of a picture in each format."""

from __future__ import annotations

import io
import logging
import struct
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import PIL.Image

from mirnet.errors import UsageError
from mirnet.images import png, tiff
from mirnet.images.formats import FORMATS, format_named
from mirnet.images.image import Image, Pixels

logger = logging.getLogger(__name__)

# a segment of 65,535 bytes with its length
_MAX_JPEG_EXIF = 65_533


def encode(image: Image, *, format: str | None = None, quality: int = 95) -> bytes:
    """Encode as ``format``, by default the image's own; metadata and profile are kept.

    PNG and TIFF hold 16 bits; JPEG, WebP and BMP get the nearest 8-bit value. BMP holds no
    metadata. TIFF keeps the profile and no EXIF.

    Args:
        quality: of JPEG and WebP, 1 to 100; JPEG without chroma subsampling.

    Raises:
        UsageError: an unknown format, transparency in a JPEG or BMP, or more pixels a side than
            the format can count.
    """
    format = (format or image.format).upper()
    if format not in FORMATS:
        raise UsageError(f"format {format}: write one of {', '.join(FORMATS)}")
    if image.alpha is not None and not format_named(format).alpha:
        raise UsageError(f"{format} holds no transparency: write PNG, WebP or TIFF")
    if image.pixels.dtype == np.uint16:
        if format == "PNG":
            return png.write_16_bit(_channels(image), icc=image.icc, exif=image.exif)  # type: ignore[arg-type]
        if format == "TIFF":
            if image.alpha is not None:  # Pillow reads no 16-bit TIFF of grey with transparency
                image = replace(image, grey=False)
            return tiff.write_16_bit(_channels(image), alpha=image.alpha is not None, icc=image.icc)  # type: ignore[arg-type]
        image = _to_8_bit(image)
    samples = _channels(image)
    picture = PIL.Image.fromarray(samples)
    options: dict[str, object] = {}
    if format in ("JPEG", "WEBP"):
        options["quality"] = quality
    if format == "JPEG":
        options["subsampling"] = 0
    if format == "WEBP" and image.lossless:
        options |= {"lossless": True, "exact": True}
    if format == "PNG":
        options["compress_type"] = png.strategy_for(samples)
    if format == "TIFF":
        options["compression"] = "tiff_adobe_deflate"
    if image.icc and format != "BMP":
        options["icc_profile"] = image.icc
    if image.exif and format in ("PNG", "JPEG", "WEBP"):
        if format == "JPEG" and len(image.exif) > _MAX_JPEG_EXIF:
            logger.warning("EXIF of %d bytes does not fit into a JPEG, dropped", len(image.exif))
        else:
            options["exif"] = image.exif
    buffer = io.BytesIO()
    try:
        picture.save(buffer, format=format, **options)
    except (OSError, ValueError, struct.error) as error:
        height, width = image.pixels.shape[:2]
        raise UsageError(f"{format} cannot hold {width}x{height}: {error}") from error
    return buffer.getvalue()


def to_png(pixels: Pixels) -> bytes:
    """(H, W, 3) RGB, uint8 or uint16 -> the bytes of a PNG."""
    return encode(Image(pixels=pixels))


def _channels(image: Image) -> Pixels:
    """(H, W) or (H, W, 2 | 3 | 4): what a file stores."""
    colour = image.pixels[..., :1] if image.grey else image.pixels
    if image.alpha is not None:
        colour = np.concatenate((colour, image.alpha[..., None]), axis=2)
    return np.ascontiguousarray(colour[..., 0] if colour.shape[2] == 1 else colour)


def _to_8_bit(image: Image) -> Image:
    def narrow(wide: Pixels) -> npt.NDArray[np.uint8]:
        return ((wide.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)

    alpha = None if image.alpha is None else narrow(image.alpha)
    return replace(image, pixels=narrow(image.pixels), alpha=alpha)
