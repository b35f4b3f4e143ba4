"""Metadata from the tags of a TIFF, and tags from metadata.

TIFF 6.0, section 8; XMP part 3, section 3.6; EXIF 2.32, section 4.6.
"""

from __future__ import annotations

import struct

from mirnet.images import photoshop, tags
from mirnet.images.image import Image, Metadata, Resolution
from mirnet.images.tags import RESOLUTION_UNIT, X_RESOLUTION, Y_RESOLUTION, Directory, Order, Tag
from mirnet.images.tiff import Page

_DESCRIPTION, _XMP, _IPTC, _PHOTOSHOP, _ICC = 270, 700, 33723, 34377, 34675
# layout of the samples in the file; replaced by those of the writer
_STRUCTURAL = {
    *range(254, 267),
    *(273, 274, 277, 278, 279, 280, 281, 284, 288, 289, 290, 291, 292, 293, 297, 301, 317),
    *range(320, 334),
    *(336, 338, 339, 340, 341, 342, 343, 344, 345, 346, 347, 351),
    *range(512, 522),
    *(529, 530, 531, 532, 559),
}
_OWN_FIELDS = {_XMP, _IPTC, _PHOTOSHOP, _ICC, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT}
# tags that describe or duplicate the samples of the input, with their names
_LEFT_BEHIND = {
    297: "page number",
    301: "TIFF transfer function",
    330: "further pictures (SubIFDs)",
    332: "TIFF ink set",
    333: "TIFF ink names",
    342: "TIFF transfer range",
    37724: "Photoshop layers",
    50255: "Photoshop annotations",
    50784: "Sketchbook layers",
}
_LARGEST = 16 << 20
_UNITS = {1: "none", 2: "inch", 3: "cm"}
_BIG_KINDS = {16, 17, 18}


def read(page: Page) -> tuple[bytes | None, bytes | None, Metadata]:
    """Profile, EXIF block (the descriptive tags with those of EXIF and GPS), and the rest."""
    directory, dropped = page.directory, []
    if page.num_others:
        dropped.append(f"{page.num_others} further pages (reduced copies or masks)")
    dropped += [what for number, what in _LEFT_BEHIND.items() if number in directory.tags]
    large = [n for n, tag in directory.tags.items() if _is_extra(tag) and not _fits(tag)]
    dropped += [f"TIFF tag {number}" for number in sorted(large)]
    kept = {n: tag for n, tag in directory.tags.items() if _is_extra(tag) and _fits(tag)}
    exif = None
    if kept or directory.children:
        exif = tags.write_block(Directory(kept, directory.order, directory.children))
    blocks, thumbnails = photoshop.without_thumbnails(_bytes(directory, _PHOTOSHOP) or b"")
    dropped += ["Photoshop thumbnail"] if thumbnails else []
    metadata = Metadata(
        xmp=_bytes(directory, _XMP),
        photoshop=blocks or None,
        iptc=_bytes(directory, _IPTC),
        resolution=_resolution(directory),
        dropped=tuple(dropped),
    )
    return _bytes(directory, _ICC), exif, metadata


def _is_extra(tag: Tag) -> bool:
    if tag.number in (_STRUCTURAL | _OWN_FIELDS | tags.POINTERS | _LEFT_BEHIND.keys()):
        return False
    # layout of samples of tifffile and its readers
    return not (tag.number == _DESCRIPTION and bytes(tag.value[:9]) == b'{"shape":')


def _fits(tag: Tag) -> bool:
    return len(tag.value) <= _LARGEST and tag.kind not in _BIG_KINDS


def _bytes(directory: Directory, number: int) -> bytes | None:
    tag = directory.tags.get(number)
    return bytes(tag.value) if tag is not None and len(tag.value) <= _LARGEST else None


def _resolution(directory: Directory) -> Resolution | None:
    values = []
    for number in (X_RESOLUTION, Y_RESOLUTION):
        tag = directory.tags.get(number)
        if tag is None or tag.kind != 5:
            return None
        above, below = struct.unpack_from(directory.order + "II", tag.value)
        if not above or not below:
            return None
        values.append(above / below)
    unit = _UNITS.get(directory.integer(RESOLUTION_UNIT) or 2, "none")
    return Resolution(values[0], values[1], unit)  # type: ignore[arg-type]


def order_for(image: Image) -> Order:
    """The byte order of a file that stores the image's EXIF unchanged."""
    return tags.byte_order(image.exif or b"") or "<"


def write(data: bytes, image: Image) -> bytes:
    """A TIFF in the byte order of ``order_for``, with the metadata of the image added.

    A new directory at the end of the file replaces the first one.
    """
    order, page = order_for(image), tags.read_first(data)
    assert page is not None
    carried = tags.read_first(image.exif) if image.exif else None
    found = {n: tag for n, tag in page.tags.items() if n in _STRUCTURAL}
    children: dict[int, Directory] = {}
    if carried is not None:
        children = carried.children
        not_kept = _STRUCTURAL | tags.POINTERS | _LEFT_BEHIND.keys()
        found |= {n: tag for n, tag in carried.tags.items() if n not in not_kept}
    found |= {tag.number: tag for tag in _fields(image, order)}
    at = len(data) + len(data) % 2
    directory = tags.write(Directory(found, order, children), at)
    return data[:4] + struct.pack(order + "I", at) + data[8:].ljust(at - 8, b"\0") + directory


def _fields(image: Image, order: Order) -> list[Tag]:
    metadata, found = image.metadata, []
    if image.icc:
        found.append(tags.bytes_tag(_ICC, 7, image.icc))
    if metadata.xmp:
        found.append(tags.bytes_tag(_XMP, 1, metadata.xmp))
    if metadata.iptc:
        found.append(tags.bytes_tag(_IPTC, 7, metadata.iptc))
    if metadata.photoshop:
        found.append(tags.bytes_tag(_PHOTOSHOP, 1, metadata.photoshop))
    resolution = metadata.resolution
    if resolution is not None:
        if resolution.unit == "metre":
            resolution = resolution.per("inch")
        unit = {"none": 1, "inch": 2, "cm": 3}[resolution.unit]
        found.append(tags.rational_tag(X_RESOLUTION, resolution.across, order))
        found.append(tags.rational_tag(Y_RESOLUTION, resolution.down, order))
        found.append(tags.short_tag(RESOLUTION_UNIT, unit, order))
    return found
