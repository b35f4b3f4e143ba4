"""Array -> bytes: encoding of an image with its metadata."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import PIL.Image

from mirnet.errors import UsageError
from mirnet.images import (
    bmp,
    jpeg,
    jpeg_metadata,
    metadata,
    photoshop,
    png,
    png_reading,
    tiff_metadata,
)
from mirnet.images.formats import FORMATS, TABLE, format_named
from mirnet.images.image import Image, Pixels

# pixels per metre are 31 bits in a BMP
_MAX_DPI = 50_000_000
_WITH_ALPHA = ", ".join(entry.name for entry in TABLE if entry.alpha)
logger = logging.getLogger(__name__)


def encode(image: Image, *, format: str | None = None, quality: int = 95) -> bytes:
    """Encode as ``format``, by default that of the image, with the metadata that the format
    supports (:mod:`mirnet.images.formats`).

    PNG and TIFF store 16 bits; for JPEG, WebP and BMP values are rounded to 8 bits.

    Args:
        quality: of JPEG and WebP, 1 to 100; JPEG without chroma subsampling.

    Raises:
        UsageError: an unknown format, transparency in a JPEG, or more pixels per side than
            the format allows.
    """
    format = (format or image.format).upper()
    if format not in FORMATS:
        raise UsageError(f"format {format}: write one of {', '.join(FORMATS)}")
    entry = format_named(format)
    if image.alpha is not None and not entry.alpha:
        if (image.alpha != np.iinfo(image.alpha.dtype).max).any():
            raise UsageError(f"{format} holds no transparency: write one of {_WITH_ALPHA}")
        image = replace(image, alpha=None)
    if image.pixels.dtype == np.uint16 and 16 not in entry.depths:
        image = _to_8_bit(image)
    image, _ = metadata.fitted(image, format)
    try:
        if format == "PNG":
            return _png(image)
        if format == "TIFF":
            return _tiff(image)
        if format == "BMP" and image.alpha is not None:
            rgba = _channels(replace(image, grey=False))
            return bmp.write_with_alpha(rgba, image.metadata.resolution)  # type: ignore[arg-type]
        return _by_pillow(image, format, quality)
    except (OSError, ValueError, struct.error) as error:
        height, width = image.pixels.shape[:2]
        raise UsageError(f"{format} cannot hold {width}x{height}: {error}") from error


def to_png(pixels: Pixels) -> bytes:
    """(H, W, 3) RGB, uint8 or uint16 -> the bytes of a PNG."""
    return encode(Image(pixels=pixels))


def _png(image: Image) -> bytes:
    samples = _channels(image)
    if samples.dtype == np.uint16:
        data = png.write_16_bit(samples)  # type: ignore[arg-type]
    else:
        buffer = io.BytesIO()
        compress_type = png.strategy_for(samples)
        PIL.Image.fromarray(samples).save(buffer, "PNG", compress_type=compress_type)
        data = buffer.getvalue()
    chunks = _chunks(image)
    return png.with_chunks(data, chunks) if chunks else data


def _chunks(image: Image) -> list[tuple[bytes, bytes]]:
    """The metadata as chunks, in an order that PNG allows before the samples."""
    carried = image.metadata
    chunks = list(carried.colour)
    if image.icc and not any(kind == b"iCCP" for kind, _ in chunks):
        chunks.append((b"iCCP", b"icc\0\0" + zlib.compress(image.icc)))
    if carried.resolution:
        resolution = carried.resolution.per("metre")
        values = [min(2**31 - 1, round(v)) for v in (resolution.across, resolution.down)]
        chunks.append((b"pHYs", struct.pack(">IIB", *values, resolution.unit == "metre")))
    if image.exif:
        chunks.append((b"eXIf", image.exif.removeprefix(b"Exif\0\0")))
    if carried.xmp:
        chunks.append((b"iTXt", png_reading.XMP_KEYWORD + bytes(5) + carried.xmp))
    chunks += carried.text
    chunks += [png_reading.comment(text) for text in carried.comments]
    resources = photoshop.with_iptc(carried.photoshop, carried.iptc)
    if resources:
        chunks.append((b"zTXt", png_reading.raw_profile("8bim", resources)))
    chunks += carried.others
    return chunks


def _tiff(image: Image) -> bytes:
    import tifffile

    if image.alpha is not None and image.pixels.dtype == np.uint16:
        image = replace(image, grey=False)  # few readers support 16-bit grey with transparency
    samples = _channels(image)
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        samples,
        byteorder=tiff_metadata.order_for(image),
        bigtiff=False,
        photometric="minisblack" if image.grey else "rgb",
        extrasamples=["unassalpha"] if image.alpha is not None else None,
        planarconfig="contig",
        compression="zlib",
        metadata=None,
        software=False,
    )
    return tiff_metadata.write(buffer.getvalue(), image)


def _by_pillow(image: Image, format: str, quality: int) -> bytes:
    options: dict[str, object] = {}
    if format == "JPEG":
        options |= {"quality": quality, "subsampling": 0}
    if format == "WEBP":
        options |= {"quality": quality, "icc_profile": image.icc, "exif": image.exif or b""}
        options |= {"xmp": image.metadata.xmp or b""}
        if image.lossless:
            options |= {"lossless": True, "exact": True}
    if format == "BMP" and image.metadata.resolution:
        inches = image.metadata.resolution.per("inch")
        options["dpi"] = (min(inches.across, _MAX_DPI), min(inches.down, _MAX_DPI))
    buffer = io.BytesIO()
    PIL.Image.fromarray(_channels(image)).save(buffer, format=format, **options)
    data = buffer.getvalue()
    return _with_segments(data, image) if format == "JPEG" else data


def _with_segments(data: bytes, image: Image) -> bytes:
    segments, large = jpeg_metadata.segments(image)
    for what in large:
        logger.warning("dropped: %s", what)
    data = jpeg_metadata.with_density(data, image.metadata.resolution)
    return jpeg.with_segments(data, segments) if segments else data


def _channels(image: Image) -> Pixels:
    """(H, W) or (H, W, 2 | 3 | 4): the samples to be stored."""
    colour = image.pixels[..., :1] if image.grey else image.pixels
    if image.alpha is not None:
        colour = np.concatenate((colour, image.alpha[..., None]), axis=2)
    return np.ascontiguousarray(colour[..., 0] if colour.shape[2] == 1 else colour)


def _to_8_bit(image: Image) -> Image:
    def narrow(wide: Pixels) -> npt.NDArray[np.uint8]:
        return ((wide.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)

    alpha = None if image.alpha is None else narrow(image.alpha)
    return replace(image, pixels=narrow(image.pixels), alpha=alpha)
