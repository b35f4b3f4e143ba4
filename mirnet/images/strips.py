"""Pillow's images to arrays, one strip at a time, without a second copy of the whole image."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ImageCms

from mirnet.images.image import Image

logger = logging.getLogger(__name__)

_STRIP = 1 << 20
# sizes are checked earlier, against our own limit; Pillow's would refuse TIFF and WebP
PIL.Image.MAX_IMAGE_PIXELS = None
# warnings of damaged tags are not needed: we parse the required tags ourselves
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")
Convert = Callable[[PIL.Image.Image], PIL.Image.Image]


def boxes(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Left, top, right, bottom of pieces of about a million pixels, in reading order."""
    columns = min(width, _STRIP)
    rows = max(1, _STRIP // columns)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield left, top, min(left + columns, width), min(top + rows, height)


def to_array(
    pillow: PIL.Image.Image, num_channels: int, convert: Convert, dtype: Any = np.uint8
) -> npt.NDArray[Any]:
    """(H, W) or (H, W, num_channels) of the converted image."""
    pillow.load()
    width, height = pillow.size
    if width * height <= _STRIP:
        return np.asarray(convert(pillow))
    shape = (height, width) if num_channels == 1 else (height, width, num_channels)
    array = np.empty(shape, dtype)
    for left, top, right, bottom in boxes(width, height):
        piece = pillow.crop((left, top, right, bottom))
        array[top:bottom, left:right] = np.asarray(convert(piece))
    return array


def to_mode(pillow: PIL.Image.Image, mode: str) -> npt.NDArray[np.uint8]:
    """In a mode of Pillow with 8 bits per channel."""
    return to_array(pillow, len(mode), lambda piece: piece.convert(mode))


def to_image(pillow: PIL.Image.Image, format: str) -> Image:
    """8-bit samples of any mode that becomes RGB, with or without transparency."""
    grey = pillow.mode in ("1", "L", "LA", "La")
    if pillow.has_transparency_data:
        rgba = to_mode(pillow, "RGBA")
        alpha = np.ascontiguousarray(rgba[..., 3])
        return Image(np.ascontiguousarray(rgba[..., :3]), format, alpha, grey)
    if grey:
        return Image(three(to_mode(pillow, "L")), format, grey=True)
    return Image(to_mode(pillow, "RGB"), format)


def cmyk_to_srgb(pillow: PIL.Image.Image, icc: bytes | None) -> npt.NDArray[np.uint8]:
    """Convert with the profile, or without one if it is missing or not usable."""
    transform = _to_srgb(icc) if icc else None
    if transform is None:
        return to_mode(pillow, "RGB")
    return to_array(pillow, 3, lambda piece: ImageCms.applyTransform(piece, transform) or piece)


def _to_srgb(icc: bytes) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        target = ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(source, target, "CMYK", "RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        logger.warning("CMYK profile not usable, converting without it: %s", error)
        return None


def three(grey: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(H, W) -> (H, W, 3)."""
    return np.repeat(grey[..., None], 3, axis=2)
