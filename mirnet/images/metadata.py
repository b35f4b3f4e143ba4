"""What is carried over from one picture to another, and what is left behind."""

from __future__ import annotations

import re
from dataclasses import replace

from mirnet.images import icc, jpeg_metadata, tags
from mirnet.images.formats import Fate, format_named
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
    """Metadata of a picture whose pixels were just turned: orientation 1, sizes as they are.

    Resolutions across and down change places where the picture was turned by a quarter.
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
    """The picture with what this format can hold, and what it cannot, in words.

    PNG's statements on colour become a profile where the format holds profiles only.
    """
    fates = format_named(format).fields
    metadata, lost = image.metadata, []
    if metadata.colour and fates["colour"] != Fate.KEPT:
        profile = None if image.icc else icc.from_png(metadata.colour, grey=image.grey)
        if fates["colour"] == Fate.CONVERTED and (profile or image.icc):
            image = replace(image, icc=image.icc or profile)
        elif not icc.is_srgb(metadata.colour):
            lost.append("colour space")
        metadata = replace(metadata, colour=())
    if image.icc and fates["icc"] == Fate.DROPPED:
        image = replace(image, icc=None)
        lost.append("colour profile")
    if image.exif and fates["exif"] == Fate.DROPPED:
        image = replace(image, exif=None)
        lost.append("EXIF")
    if format == "TIFF" and image.exif and len(list(tags.read_all(image.exif))) > 1:
        lost.append("EXIF thumbnail")
    empty = Metadata()
    for field, names in _NAMES.items():
        present = any(getattr(metadata, name) for name in names)
        if present and fates[field] == Fate.DROPPED:
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
    """What of the file that was decoded is not in one that is encoded as ``format``."""
    format = format or image.format
    kept, lost = fitted(image, format)
    large = jpeg_metadata.segments(kept)[1] if format == "JPEG" else []
    return (*image.metadata.dropped, *lost, *large)
