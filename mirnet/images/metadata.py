"""Transfer of metadata from one image to another."""

from __future__ import annotations

import re
from dataclasses import replace

from mirnet.images import icc, jpeg_metadata, tags
from mirnet.images.formats import format_named
from mirnet.images.image import Image, Metadata

# in an XMP packet a property is an attribute or an element
_PROPERTY = rb"(\b%s(?:\s*=\s*[\"']|\s*>\s*))\d+"
_SIZES = (
    (b"tiff:ImageWidth", 1),
    (b"tiff:ImageLength", 0),
    (b"exif:PixelXDimension", 1),
    (b"exif:PixelYDimension", 0),
)


def upright(image: Image, orientation: int) -> Image:
    """Metadata of an image whose pixels were just rotated: orientation 1, present sizes.

    Horizontal and vertical resolution are swapped if it was rotated by 90 degrees.
    """
    height, width = image.pixels.shape[:2]
    turned = orientation > 4
    exif, metadata = image.exif, image.metadata
    if exif:
        exif = tags.set_upright(exif, height=height, width=width, turned=turned)
    if turned and metadata.resolution:
        metadata = replace(metadata, resolution=metadata.resolution.turned())
    if orientation != 1 and metadata.xmp:
        metadata = replace(metadata, xmp=_upright_xmp(metadata.xmp, height, width))
    return replace(image, exif=exif, metadata=metadata)


def _upright_xmp(xmp: bytes, height: int, width: int) -> bytes:
    values = [(b"tiff:Orientation", 1), *((key, (height, width)[n]) for key, n in _SIZES)]
    for key, value in values:
        xmp = re.sub(_PROPERTY % key, rb"\g<1>%d" % value, xmp)
    return xmp


def fitted(image: Image, format: str) -> tuple[Image, tuple[str, ...]]:
    """The image with the metadata that this format supports, and names of those it does not.

    PNG's colour chunks become a profile if the format supports only profiles.
    """
    entry = format_named(format)
    metadata, lost = image.metadata, []
    if metadata.colour and entry.fate("colour") != "kept":
        profile = None if image.icc else icc.from_png(metadata.colour, grey=image.grey)
        if entry.fate("colour") == "converted" and (profile or image.icc):
            image = replace(image, icc=image.icc or profile)
        elif not icc.is_srgb(metadata.colour):
            lost.append("colour space")
        metadata = replace(metadata, colour=())
    if image.icc and entry.fate("icc") == "dropped":
        image = replace(image, icc=None)
        lost.append("colour profile")
    if image.exif and entry.fate("exif") == "dropped":
        image = replace(image, exif=None)
        lost.append("EXIF")
    if format == "TIFF" and image.exif and len(list(tags.read_all(image.exif))) > 1:
        lost.append("EXIF thumbnail")
    empty = Metadata()
    for field, names in _NAMES.items():
        present = any(getattr(metadata, name) for name in names)
        if present and entry.fate(field) == "dropped":
            metadata = replace(metadata, **{name: getattr(empty, name) for name in names})
            lost.append(field)
    return replace(image, metadata=metadata), tuple(lost)


_NAMES = {
    "XMP": ("xmp", "xmp_extensions"),
    "IPTC": ("iptc", "photoshop"),
    "resolution": ("resolution",),
    "comments": ("comments",),
    "text": ("text",),
    "further chunks": ("others",),
}


def left_behind(image: Image, format: str | None = None) -> tuple[str, ...]:
    """Metadata of the decoded file that a file encoded as ``format`` does not have."""
    format = format or image.format
    kept, lost = fitted(image, format)
    large = jpeg_metadata.segments(kept)[1] if format == "JPEG" else []
    return (*image.metadata.dropped, *lost, *large)
